//! Calls a backend over and over, as a pod in a cluster does: resolve the name through cluster DNS,
//! connect, ask, and say what happened; and when it failed, why.

pub mod advice;
pub mod check;
pub mod cli;
pub mod diagnose;
pub mod dns;
pub mod http;
pub mod json;
mod live;
mod metrics;
pub mod probe;
pub mod report;
pub mod status;
pub mod summary;
pub mod text;
pub mod view;

use std::future::Future;
use std::io::{self, Write};
use std::mem;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use runtime::admin::{self, Admin, Readiness};
use runtime::listen::{BindError, ListenAddr};
use runtime::server::Server;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::info;

use crate::live::{About, Live, Routes};
use crate::metrics::Metrics;
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::summary::Summary;
use crate::view::Format;

/// What a caller does.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to call.
    pub probe: ProbeConfig,
    /// From the start of a call to the start of the next; zero: one after another.
    pub interval: Duration,
    /// Stop after this many calls.
    pub count: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// How much to say of each call.
    pub format: Format,
    /// Where browsers, probes and scrapers come in. `None`: nowhere.
    pub admin: Option<ListenAddr>,
    /// The pod that this is, for the live page.
    pub name: Option<String>,
}

/// A caller whose admin port is open.
pub struct Caller {
    config: Config,
    admin: Option<Server>,
    readiness: Readiness,
    live: Arc<Live>,
    metrics: Metrics,
}

/// Opens the admin port. Must be called inside a Tokio runtime.
///
/// # Errors
///
/// When the port cannot be opened; the error names it.
pub fn bind(config: Config) -> Result<Caller, BindError> {
    let readiness = Readiness::ready();
    let listener = config.admin.map(ListenAddr::bind).transpose()?;
    let live = Arc::new(Live::new(About {
        name: config.name.clone(),
        url: config.probe.target.to_string(),
        host: config.probe.target.host.clone(),
        interval: config.interval,
    }));
    let (metrics, registry) = Metrics::new();
    let routes = Routes::new(Arc::clone(&live), Admin::new(readiness.clone(), registry));
    let admin = listener.map(|listener| admin::server(listener, routes));
    Ok(Caller {
        config,
        admin,
        readiness,
        live,
        metrics,
    })
}

impl Caller {
    /// Where browsers, probes and scrapers come in.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Calls until `shutdown` completes, or until it has called often or long enough; writes a
    /// block for each call and the summary to `out`.
    ///
    /// A call under way is finished first.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        mut out: impl Write,
    ) -> io::Result<Summary> {
        let Self {
            config,
            admin,
            readiness,
            live,
            metrics,
        } = self;
        let Config {
            probe,
            interval,
            count,
            duration,
            format,
            admin: _,
            name: _,
        } = config;
        if let Some(admin) = admin {
            info!(address = %admin.local_addr()?, "admin is listening");
            tokio::spawn(admin.run(std::future::pending()));
        }
        let end = duration.map(|duration| Instant::now() + duration);
        let mut stop = pin!(async {
            tokio::select! {
                () = shutdown => {}
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
            }
        });
        let mut ticker = Ticker::new(interval);
        let probe = Probe::new(probe);
        let mut calls = 0;
        let mut stopping = false;
        while !stopping && count.is_none_or(|count| calls < count) {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = ticker.tick() => {}
            }
            let mut text = String::new();
            let mut is_first = true;
            let ended = |report: Report| {
                calls += 1;
                // The calls of a round share one lookup.
                if mem::take(&mut is_first)
                    && let Some(lookup) = &report.lookup
                {
                    metrics.observe_lookup(lookup);
                }
                metrics.observe(&report, live.record(&report));
                text += &format.report(live.url(), &report);
            };
            {
                let mut round = pin!(probe.round(ended));
                tokio::select! {
                    () = &mut round => {}
                    () = &mut stop => {
                        stopping = true;
                        readiness.set(false);
                        round.await;
                    }
                }
            }
            live.end_round();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        let summary = live.summary();
        out.write_all(format.summary(&summary).as_bytes())?;
        out.flush()?;
        Ok(summary)
    }
}

/// Ticks from start to start. A call that takes longer than the interval skips ticks.
struct Ticker(Option<tokio::time::Interval>);

impl Ticker {
    fn new(every: Duration) -> Self {
        Self((!every.is_zero()).then(|| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        }))
    }

    async fn tick(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::Ticker;

    const EVERY: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_skips_ticks_and_never_bunches_them() {
        let start = Instant::now();
        let mut ticker = Ticker::new(EVERY);
        let mut starts = Vec::new();
        for call in [1, 25, 1, 1] {
            ticker.tick().await;
            starts.push(start.elapsed().as_secs());
            advance(Duration::from_secs(call)).await;
        }
        // The second call took until 35: the ticks at 20 and 30 are made up for by one, at once.
        assert_eq!(starts, [0, 10, 35, 40]);
    }
}
