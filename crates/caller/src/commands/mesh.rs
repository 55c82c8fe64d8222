//! `caller mesh`: collects the rows of all callers behind the names of the targets, and prints the state of the
//! mesh. The exit code is 0 if all is well, 1 if it is not, and 3 if no row was collected.

use std::process::ExitCode;

use super::print;
use crate::mesh::collect::Collector;
use crate::mesh::report::MeshReport;
use crate::views::mesh;

/// Configuration of `caller mesh`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Collects the rows of the mesh's callers.
    pub collector: Collector,
    /// Whether to print JSON in place of text.
    pub json: bool,
    /// Name of this pod, if it is known.
    pub name: Option<String>,
}

/// Collects the rows, prints the state of the mesh, and returns the exit code.
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
