use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

/// Histogram buckets in seconds for short work: requests, calls of a store.
const SHORT: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Histogram buckets in seconds for long work: steps, waiting for a worker.
const LONG: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
];

/// All metrics with their names.
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) executions_created: IntCounter,
    pub(super) status_changes: IntCounterVec,
    pub(super) active_executions: IntGauge,
    pub(super) steps: IntCounterVec,
    pub(super) step_seconds: HistogramVec,
    pub(super) claims: IntCounter,
    pub(super) takeovers: IntCounter,
    pub(super) queue_seconds: Histogram,
    pub(super) leases_lost: IntCounter,
    pub(super) store_seconds: HistogramVec,
    pub(super) store_errors: IntCounterVec,
    pub(super) bus_errors: IntCounterVec,
    pub(super) webhooks: IntCounterVec,
    pub(super) streams: IntGaugeVec,
    pub(super) streams_closed_slow: IntCounter,
    pub(super) connections_closed_slow: IntCounter,
    pub(super) connections: IntGauge,
    pub(super) connections_closed: IntCounterVec,
    pub(super) sse_events: IntCounterVec,
    pub(super) http_requests: IntCounterVec,
    pub(super) http_seconds: HistogramVec,
}

impl Default for Families {
    fn default() -> Self {
        let made = Maker(Registry::new());
        Self {
            executions_created: made.counter(
                "docg_executions_created_total",
                "Executions that were created.",
            ),
            status_changes: made.counters(
                "docg_execution_status_changes_total",
                "Changes of executions' status, by the new status: completed, failed and canceled \
                 are outcomes.",
                &["to"],
            ),
            active_executions: made.of(IntGauge::new(
                "docg_active_executions",
                "Executions that this process holds.",
            )),
            steps: made.counters(
                "docg_steps_total",
                "Attempts of steps, by what became of them: success, retry (it is tried again by \
                 itself), failure, skipped.",
                &["node_type", "outcome"],
            ),
            step_seconds: made.histograms(
                "docg_step_duration_seconds",
                "Time that handlers were at work for a step; time spent waiting for people is not \
                 in it.",
                &["node_type"],
                LONG,
            ),
            claims: made.counter(
                "docg_claims_total",
                "Executions that this process has taken, to work on them or to apply a signal.",
            ),
            takeovers: made.counter(
                "docg_takeovers_total",
                "Of the executions taken, those whose holder had let its lease run out.",
            ),
            queue_seconds: made.of(Histogram::with_opts(
                HistogramOpts::new(
                    "docg_queue_wait_seconds",
                    "Time from when an execution was due until a worker took it.",
                )
                .buckets(LONG.to_vec()),
            )),
            leases_lost: made.counter(
                "docg_leases_lost_total",
                "Executions that this process has lost while it held them.",
            ),
            store_seconds: made.histograms(
                "docg_store_call_duration_seconds",
                "Time that calls of the store took.",
                &["operation"],
                SHORT,
            ),
            store_errors: made.counters(
                "docg_store_errors_total",
                "Calls of the store that failed; a conflict of a commit is one of another worker.",
                &["operation", "kind"],
            ),
            bus_errors: made.counters(
                "docg_bus_errors_total",
                "Calls of the bus that it did not answer; events are published later then.",
                &["operation"],
            ),
            webhooks: made.counters(
                "docg_webhooks_total",
                "Webhooks of signature providers, by what became of them.",
                &["provider", "outcome"],
            ),
            streams: made.of(IntGaugeVec::new(
                Opts::new("docg_sse_streams", "Open event streams."),
                &["kind"],
            )),
            streams_closed_slow: made.counter(
                "docg_sse_streams_closed_slow_total",
                "Event streams that were closed because their reader did not keep up.",
            ),
            connections_closed_slow: made.counter(
                "docg_http_connections_closed_slow_total",
                "Connections that were closed because their client took nothing of what it was sent.",
            ),
            connections: made.of(IntGauge::new(
                "docg_http_connections",
                "Connections that clients have open.",
            )),
            connections_closed: made.counters(
                "docg_http_connections_closed_total",
                "Connections that the server closed: their request took too long to begin (head), they \
                 were idle, their client took nothing of an answer (slow), their place was needed \
                 (room), or there was none (full).",
                &["reason"],
            ),
            sse_events: made.counters(
                "docg_sse_events_total",
                "Events that were given to readers of event streams.",
                &["kind"],
            ),
            http_requests: made.counters(
                "docg_http_requests_total",
                "HTTP requests, by route, method and class of status.",
                &["route", "method", "status"],
            ),
            http_seconds: made.histograms(
                "docg_http_request_duration_seconds",
                "Time until the answer to an HTTP request began.",
                &["route", "method"],
                SHORT,
            ),
            registry: made.0,
        }
    }
}

struct Maker(Registry);

impl Maker {
    fn of<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        // Cannot fail: names, labels and buckets are constants above, and each name occurs once.
        let collector = made.expect("a metric's name, labels and buckets are well formed");
        self.0
            .register(Box::new(collector.clone()))
            .expect("each metric has a name of its own");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.of(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.of(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.of(HistogramVec::new(opts, labels))
    }
}
