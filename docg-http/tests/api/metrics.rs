use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;

use crate::support::{Answer, Call, World};

/// One line of Prometheus' text format: a metric's name, its labels and its value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A page in Prometheus' text format 0.0.4.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

fn is_name(name: &str, more: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    name.starts_with(|c: char| fits(c) && !c.is_ascii_digit()) && name.chars().all(fits)
}

/// Reads labels, written as `{name="value",…}`. Returns the labels and the text after them.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else {
        return (BTreeMap::new(), text);
    };
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label has a value");
        assert!(is_name(name, "_"), "{name:?} is no label name");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a value is closed") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('\\' | '"'))) => c,
                    other => panic!("no escape: {other:?}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(
            labels.insert(name.to_owned(), value).is_none(),
            "{name} twice"
        );
        rest = &after[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (labels, more),
            _ => panic!("no end of labels: {rest:?}"),
        }
    }
}

impl Scrape {
    /// Parses a page. Fails on anything that the format does not allow, even if Prometheus accepts it.
    fn parse(text: &str) -> Self {
        assert!(
            text.ends_with('\n') && !text.contains('\r'),
            "each line ends"
        );
        let mut scrape = Self::default();
        let (mut helped, mut current) = (BTreeSet::new(), String::new());
        let mut ended: BTreeSet<String> = BTreeSet::new();
        for line in text.split_terminator('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help text");
                assert!(
                    !text.is_empty() && helped.insert(name.to_owned()),
                    "{name} is explained once"
                );
            } else if let Some(told) = line.strip_prefix("# TYPE ") {
                let (name, kind) = told.split_once(' ').expect("a type");
                assert!(is_name(name, "_:") && helped.contains(name), "{line}");
                assert!(
                    matches!(kind, "counter" | "gauge" | "histogram"),
                    "{kind} is no type"
                );
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                assert!(
                    ended.insert(std::mem::replace(&mut current, name.to_owned())),
                    "families are together"
                );
                let known = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert!(known.is_none(), "{name} is declared once");
            } else {
                let end = line
                    .find(['{', ' '])
                    .unwrap_or_else(|| panic!("no sample: {line:?}"));
                let (name, rest) = line.split_at(end);
                let (labels, rest) = labels(rest);
                let value = rest.strip_prefix(' ').expect("a value");
                let value: f64 = value.parse().unwrap_or_else(|e| panic!("{value:?}: {e}"));
                let family = match scrape.types.get(&current).map(String::as_str) {
                    Some("histogram") => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| name.strip_suffix(suffix)),
                    _ => Some(name),
                };
                assert_eq!(
                    family,
                    Some(current.as_str()),
                    "{name} belongs to its family"
                );
                let sample = Sample {
                    name: name.to_owned(),
                    labels,
                    value,
                };
                let same =
                    |other: &Sample| other.name == sample.name && other.labels == sample.labels;
                assert!(!scrape.samples.iter().any(same), "twice: {line}");
                scrape.samples.push(sample);
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn check_histograms(&self) {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let of = |suffix: &str| {
                let name = format!("{name}{suffix}");
                self.samples
                    .iter()
                    .filter(move |sample| sample.name == name)
            };
            let counts: Vec<_> = of("_count").collect();
            assert_eq!(counts.len(), of("_sum").count(), "{name}");
            for count in counts {
                let mut buckets = Vec::new();
                for bucket in of("_bucket") {
                    let mut labels = bucket.labels.clone();
                    let bound: f64 = labels
                        .remove("le")
                        .and_then(|le| le.parse().ok())
                        .expect("a bound");
                    if labels == count.labels {
                        buckets.push((bound, bucket.value));
                    }
                }
                assert!(
                    buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                    "{name}: {buckets:?}"
                );
                assert_eq!(
                    buckets.last(),
                    Some(&(f64::INFINITY, count.value)),
                    "{name}"
                );
            }
        }
    }

    /// The value of the sample with this name and these labels; 0 if there is none.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let sample = self
            .samples
            .iter()
            .find(|sample| sample.name == name && sample.labels == labels);
        sample.map_or(0.0, |sample| sample.value)
    }

    fn series(&self) -> BTreeSet<String> {
        let series = |sample: &Sample| format!("{} {:?}", sample.name, sample.labels);
        self.samples.iter().map(series).collect()
    }
}

async fn page(world: &World) -> Answer {
    world.send(Call::new("GET", "/metrics")).await
}

async fn scrape(world: &World) -> Scrape {
    Scrape::parse(&page(world).await.text)
}

/// Scrapes until `fits` is true. Readers may see a change before its metrics are counted.
async fn until(world: &World, fits: impl Fn(&Scrape) -> bool) -> Scrape {
    let fitting = async {
        loop {
            let seen = scrape(world).await;
            if fits(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), fitting)
        .await
        .expect("it is told")
}

#[tokio::test]
async fn a_run_shows_in_the_metrics() {
    let world = World::new().await;
    let fresh = page(&world).await;
    assert_eq!(
        fresh.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let path = world.completed().await;
    world.start(json!([{"id": "b", "type": "broken"}])).await;
    let ended = |to: &'static str| move |seen: &Scrape| status(seen, to) == 1.0;
    until(&world, ended("completed")).await;
    let seen = until(&world, ended("failed")).await;
    assert_eq!(seen.value("docg_executions_created_total", &[]), 2.0);
    assert_eq!(status(&seen, "running"), 2.0);
    let steps = |node_type, outcome| {
        seen.value(
            "docg_steps_total",
            &[("node_type", node_type), ("outcome", outcome)],
        )
    };
    assert_eq!(
        (steps("echo", "success"), steps("echo", "failure")),
        (1.0, 0.0)
    );
    assert_eq!(steps("broken", "failure"), 1.0);
    let called = |node_type| {
        seen.value(
            "docg_step_duration_seconds_count",
            &[("node_type", node_type)],
        )
    };
    assert_eq!((called("echo"), called("broken")), (1.0, 1.0));
    assert_eq!(seen.value("docg_claims_total", &[]), 2.0);
    assert_eq!(seen.value("docg_queue_wait_seconds_count", &[]), 2.0);
    for silent in ["docg_takeovers_total", "docg_leases_lost_total"] {
        assert_eq!(seen.value(silent, &[]), 0.0);
    }
    let commits = seen.value(
        "docg_store_call_duration_seconds_count",
        &[("operation", "commit")],
    );
    assert!(commits >= 2.0, "{commits}");
    world.get(&path).await;
    let requests = [
        ("route", "/api/v1/executions/{id}"),
        ("method", "GET"),
        ("status", "2xx"),
    ];
    let seen = scrape(&world).await;
    assert_eq!(seen.value("docg_http_requests_total", &requests), 1.0);
    until(&world, |seen| {
        seen.value("docg_active_executions", &[]) == 0.0
    })
    .await;
}

fn status(seen: &Scrape, to: &str) -> f64 {
    seen.value("docg_execution_status_changes_total", &[("to", to)])
}

/// Tokio's time is stopped while the test works, so that only a reader that takes nothing counts as slow,
/// also on a busy machine.
#[tokio::test(start_paused = true)]
async fn streams_show_in_the_metrics_while_they_are_open() {
    let world = World::with(|options| options.slow_reader = Duration::from_millis(20)).await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let stream = format!("/api/v1/sse{}/stream", &path["/api/v1".len()..]);
    let open = |seen: &Scrape| seen.value("docg_sse_streams", &[("kind", "execution")]);
    let stalled = world
        .open(Call::new("GET", stream.clone()).token("user"))
        .await;
    assert_eq!(open(&scrape(&world).await), 1.0);
    let seen = until(&world, |seen| open(seen) == 0.0).await;
    assert_eq!(
        seen.value("docg_sse_streams_closed_slow_total", &[]),
        1.0,
        "it took nothing"
    );
    drop(stalled);
    world.gate.notify_one();
    world.until(&path, "execution.completed").await;
    let text = world.get(&stream).await.text;
    let events = text.matches("\nid: ").count() as f64;
    let seen = scrape(&world).await;
    assert_eq!(
        seen.value("docg_sse_events_total", &[("kind", "execution")]),
        events
    );
    let list = Call::new("GET", "/api/v1/sse/executions/stream").token("user");
    let list = world.open(list).await;
    let lists = [("kind", "organization")];
    assert_eq!(scrape(&world).await.value("docg_sse_streams", &lists), 1.0);
    drop(list);
    assert_eq!(scrape(&world).await.value("docg_sse_streams", &lists), 0.0);
}

#[tokio::test]
async fn a_refusal_that_an_event_source_takes_for_a_success_counts_as_a_refusal() {
    let world = World::with(|options| options.streams_per_organization = 0).await;
    let list = "/api/v1/sse/executions/stream";
    let call = Call::new("GET", list).token("user");
    let told = world.send(call.header("accept", "text/event-stream")).await;
    assert_eq!(told.status.as_u16(), 200);
    let counted = |class| [("route", list), ("method", "GET"), ("status", class)];
    let seen = scrape(&world).await;
    let requests = |class| seen.value("docg_http_requests_total", &counted(class));
    assert_eq!((requests("4xx"), requests("2xx")), (1.0, 0.0));
}

#[tokio::test]
async fn whatever_callers_send_makes_no_more_series() {
    let world = World::new().await;
    let shake = async |name: &str| {
        world.completed().await;
        let id = uuid::Uuid::new_v4();
        for path in [
            format!("/api/v1/executions/{id}"),
            format!("/api/v1/executions/{name}"),
            format!("/{name}"),
        ] {
            world.get(&path).await;
        }
        world
            .send(Call::new("GET", "/healthz").header("x-organization-id", name))
            .await;
        let webhook = format!("/api/v1/webhooks/signature/{name}");
        world.send(Call::new("POST", webhook)).await;
        let method: &'static str = if name == "first" { "BREW" } else { "STEEP" };
        world.send(Call::new(method, "/healthz")).await;
        until(&world, |seen| status(seen, "completed") > 0.0).await;
        scrape(&world).await.series()
    };
    let first = shake("first").await;
    let second = shake("second").await;
    assert_eq!(first, second);
    assert!(first.iter().any(|series| series.contains("unmatched")));
    for name in [
        "first",
        "BREW",
        world.organization.to_string().as_str(),
        world.workflow.to_string().as_str(),
    ] {
        assert!(
            !first.iter().any(|series| series.contains(name)),
            "{name} is in a label"
        );
    }
}

#[tokio::test]
async fn webhooks_show_by_what_became_of_them() {
    let world = World::new().await;
    let webhook = |provider: &str, proof: &'static str, body: &str| {
        let call = Call::new("POST", format!("/api/v1/webhooks/signature/{provider}"));
        world.send(call.header("x-desk", proof).body(body))
    };
    for (provider, proof, body) in [
        ("desk", "proof", r#"{"delivery": "d"}"#),
        ("desk", "proof", r#"{"delivery": "d"}"#),
        ("desk", "forged", "{}"),
        ("desk", "proof", "no JSON"),
        (
            "desk",
            "proof",
            r#"{"delivery": "e", "envelope": "unknown"}"#,
        ),
        ("nobody", "proof", "{}"),
    ] {
        webhook(provider, proof, body).await;
    }
    let seen = scrape(&world).await;
    for (provider, outcome) in [
        ("desk", "accepted"),
        ("desk", "duplicate"),
        ("desk", "unauthenticated"),
        ("desk", "malformed"),
        ("desk", "not_found"),
        ("other", "not_found"),
    ] {
        let labels = [("provider", provider), ("outcome", outcome)];
        assert_eq!(
            seen.value("docg_webhooks_total", &labels),
            1.0,
            "{provider} {outcome}"
        );
    }
}

#[tokio::test]
async fn metrics_can_be_turned_off() {
    let world = World::with(|options| options.metrics = None).await;
    page(&world).await.problem(404, "not_found");
}
