//! `caller mesh`: collects the rows of all callers behind the names of the targets, and says how the mesh is. The exit
//! code is 0 where all is well, 1 where it is not, and 3 where there is no row at all.

use std::process::ExitCode;

use super::print;
use crate::mesh::collect::Collector;
use crate::mesh::report::MeshReport;
use crate::views::mesh;

/// What to collect, and how to say it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the rows are.
    pub collector: Collector,
    /// JSON in place of text.
    pub json: bool,
    /// The pod that this is, where that is known.
    pub name: Option<String>,
}

/// Collects the rows and prints what they come to.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config {
        collector,
        json,
        name,
    } = config;
    let report = MeshReport::new(collector.collect().await);
    print(&match json {
        true => mesh::to_json(&report, &collector.labels(), name.as_deref()) + "\n",
        false => mesh::text(&report),
    })?;
    Ok(report.state().exit_code().into())
}
