//! The loop: a round of calls, again and again.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use runtime::admin::{self, Hosts, Readiness};
use runtime::listen::{BindError, ListenAddr};
use runtime::output::Lines;
use runtime::server::Server;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::ticker::Ticker;
use super::wait::{EndedRound, wait};
use crate::expectation::Expectation;
use crate::metrics::Metrics;
use crate::page::{Page, Routes};
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::stats::{Observer, Stats, Summary};
use crate::views::Format;

/// What to call and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to call.
    pub probe: ProbeConfig,
    /// From the start of a call to the start of the next; zero: one after another.
    pub interval: Duration,
    /// Before the first call, try in silence until one succeeds, for at most so long.
    pub wait: Duration,
    /// Stop after this many calls.
    pub count: Option<u64>,
    /// Stop so long after the first call began.
    pub duration: Option<Duration>,
    /// Stop once the pods that answered at first have been replaced by others.
    pub until_replaced: bool,
    /// How much to say of each call.
    pub format: Format,
    /// Where the page, the probes and the metrics are served; `None` disables them.
    pub admin: Option<Admin>,
    /// Other host names that the page answers to, beside those that are this pod's in any case.
    pub admin_hosts: Vec<String>,
    /// The pod that this is, for the page.
    pub name: Option<String>,
}

/// Listen address of the page, the probes and the metrics.
#[derive(Clone, Copy, Debug)]
pub enum Admin {
    /// Asked for: a run without it is not what was wanted.
    Given(ListenAddr),
    /// `:8082`. A run with an end goes without where it is taken, as in a pod whose caller has it.
    Default,
}

/// The admin port that nobody has to ask for.
const DEFAULT_ADMIN: ListenAddr = ListenAddr {
    ip: None,
    port: 8082,
};

/// A caller whose admin port is open.
pub struct Caller {
    config: Config,
    admin: Option<(Server, SocketAddr)>,
    readiness: Readiness,
    stats: Arc<Stats>,
    metrics: Metrics,
    probe: Probe,
    lines: Lines,
}

/// Opens the admin port. Each report will be written to `lines`. Must be called inside a Tokio runtime.
///
/// # Errors
///
/// When the port cannot be opened; the error names it.
pub fn bind(config: Config, lines: Lines) -> Result<Caller, BindError> {
    let readiness = Readiness::ready();
    let listener = match config.admin {
        None => None,
        Some(Admin::Given(address)) => Some(address.bind()?),
        Some(Admin::Default) => match DEFAULT_ADMIN.bind() {
            Ok(listener) => Some(listener),
            Err(error) if config.has_end() => {
                let error = anyhow::Error::from(error);
                info!("no live page and no metrics: {error:#}");
                None
            }
            Err(error) => return Err(error),
        },
    };
    let probe = Probe::new(config.probe.clone());
    let stats = Arc::new(Stats::new(
        Arc::clone(probe.target()),
        config.until_replaced,
    ));
    let page = Page::new(config.name.clone(), config.interval, Arc::clone(&stats));
    let (metrics, registry) = Metrics::new(lines.dropped());
    // In its search list a pod finds the zone of its cluster.
    let conf = config.probe.resolver.source.read().ok();
    let search = conf
        .iter()
        .flat_map(|conf| conf.search.iter().map(String::as_str));
    let hosts = Hosts::new(config.admin_hosts.clone(), search);
    let admin = admin::Admin::new(readiness.clone(), registry);
    let routes = Routes::new(Arc::new(page), admin, hosts);
    let admin = listener.and_then(|listener| {
        let server = admin::server(listener, routes);
        let address = server.local_addr().ok()?;
        Some((server, address))
    });
    Ok(Caller {
        config,
        admin,
        readiness,
        stats,
        metrics,
        probe,
        lines,
    })
}

impl Config {
    /// Whether the run ends by itself.
    pub fn has_end(&self) -> bool {
        self.count.is_some() || self.duration.is_some() || self.until_replaced
    }
}

impl Caller {
    /// The address of the page, the probes and the metrics.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// Calls until `shutdown` completes, or until it has called often or long enough; writes a block
    /// for each call, and the summary at the end. A round that is under way is finished first.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Summary {
        let Self {
            config,
            admin,
            readiness,
            stats,
            metrics,
            probe,
            lines,
        } = self;
        if let Some((server, address)) = admin {
            info!(%address, "admin is listening");
            tokio::spawn(server.run(std::future::pending()));
        }
        let printer = Printer {
            format: config.format,
            lines,
        };
        let observers: [&dyn Observer; 3] = [&metrics, &*stats, &printer];
        let mut shutdown = pin!(shutdown);
        let mut calls = 0;
        let mut stopping = false;
        if !config.wait.is_zero() {
            tokio::select! {
                () = &mut shutdown => stopping = true,
                waited = wait(&probe, Expectation::Ok, config.wait) => {
                    calls += observe(waited, &observers);
                }
            }
        }
        let end = config.duration.map(|duration| Instant::now() + duration);
        let mut stop = pin!(async {
            tokio::select! {
                () = &mut shutdown => {}
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
            }
        });
        let mut ticker = Ticker::new(config.interval);
        if calls > 0 {
            // That tick is the one of the call which has been made.
            ticker.tick().await;
        }
        while !stopping && config.count.is_none_or(|count| calls < count) {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = ticker.tick() => {}
            }
            let mut round = pin!(make_round(&probe, &printer, &observers));
            calls += tokio::select! {
                made = &mut round => made,
                () = &mut stop => {
                    stopping = true;
                    readiness.set(false);
                    round.await
                }
            };
            if stats.is_rollout_seen() {
                break;
            }
        }
        let summary = stats.summary();
        printer.print(&config.format.summary(&summary)).await;
        summary
    }
}

/// Tells of a round that has ended. Gives the number of its calls.
fn observe(EndedRound { lookup, reports }: EndedRound, observers: &[&dyn Observer]) -> u64 {
    for observer in observers {
        if let Some(lookup) = &lookup {
            observer.lookup(lookup);
        }
        for report in &reports {
            observer.call(report);
        }
        observer.round_ended();
    }
    reports.len() as u64
}

/// Makes a round of calls, and tells of each as it ends. Gives their number.
async fn make_round(probe: &Probe, printer: &Printer, observers: &[&dyn Observer]) -> u64 {
    let mut round = probe.round().await;
    if let Some(lookup) = &round.lookup {
        for observer in observers {
            observer.lookup(lookup);
        }
    }
    let mut calls = 0;
    while let Some(report) = round.calls.next().await {
        printer.lines.room().await;
        for observer in observers {
            observer.call(&report);
        }
        calls += 1;
    }
    for observer in observers {
        observer.round_ended();
    }
    calls
}

/// Writes a block for each call.
struct Printer {
    format: Format,
    lines: Lines,
}

impl Printer {
    async fn print(&self, text: &str) {
        self.lines.room().await;
        self.append(text);
    }

    fn append(&self, text: &str) {
        self.lines
            .append(|buffer| buffer.extend_from_slice(text.as_bytes()));
    }
}

impl Observer for Printer {
    fn call(&self, report: &Report) {
        self.append(&self.format.report(report));
    }
}
