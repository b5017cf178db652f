use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    i18n::Text,
    preflight::Domain,
    workflow::{ComputeHandler, handler::CheckRequest},
};

/// A handler whose check calls the test's function.
struct Checking<F>(NodeSpec, F);

#[async_trait]
impl<F, Fut> ComputeHandler for Checking<F>
where
    F: Fn(CheckRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<Issue>> + Send + 'static,
{
    fn spec(&self) -> &NodeSpec {
        &self.0
    }
    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        (self.1)(request).await
    }
    async fn run(&self, _: StepContext, _: Value) -> Result<Value, StepFailure> {
        Ok(Value::Null)
    }
}

fn case<F, Fut>(nodes: usize, phase: Phase, check: F) -> Case
where
    F: Fn(CheckRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<Issue>> + Send + 'static,
{
    let spec = NodeSpec::new("own", phase)
        .param(ParamSpec::optional("a", ParamKind::Json))
        .param(ParamSpec::required("template", ParamKind::Template));
    let mut registry = registry();
    registry.add(Handler::Compute(Arc::new(Checking(spec, check))));
    let params = json!({"a": "{{trigger.a}} {{trigger.none}}", "template": "t"});
    let own = |index: usize| node(&format!("n{index}"), "own", params.clone());
    Case::with(
        registry,
        (0..nodes).map(own).collect(),
        json!({"a": "yes", "none": null}),
    )
}

#[tokio::test]
async fn a_handler_adds_its_own_issues_with_the_trigger_data_filled_in() {
    let case = case(1, Phase::Render, |request: CheckRequest| async move {
        let text = request.params["a"].as_str().unwrap_or_default().to_owned();
        vec![
            Issue::blocking(Domain::Template, "template_invalid_tags", Text::from("a b"))
                .field(text),
        ]
    });
    assert_eq!(
        case.found().await,
        ["template template_invalid_tags n0 yes "]
    );
}

#[tokio::test]
async fn what_the_rules_have_found_is_not_repeated_by_the_handler() {
    let mut case = case(1, Phase::Render, |_: CheckRequest| async {
        vec![
            Issue::blocking(Domain::Template, "template_not_selected", Text::from("a b"))
                .field("template"),
        ]
    });
    case.inputs.node_overrides = object(json!({"n0": {"template": ""}}));
    assert_eq!(
        case.found().await,
        ["template template_not_selected n0 template"]
    );
}

#[tokio::test]
async fn a_check_that_hangs_or_panics_is_a_warning_of_the_phase_s_domain() {
    for (phase, domain) in [
        (Phase::Trigger, "data"),
        (Phase::Render, "template"),
        (Phase::Save, "delivery"),
        (Phase::Delivery, "delivery"),
        (Phase::Signature, "signature"),
    ] {
        let expected = format!("{domain} {domain}.check_failed? n0 -");
        let hangs = case(1, phase, |_: CheckRequest| std::future::pending());
        assert_eq!(hangs.found().await, [expected.as_str()]);
        let panics = case(1, phase, |_: CheckRequest| async {
            panic!("a bug of the handler")
        });
        assert_eq!(panics.found().await, [expected.as_str()]);
        let at_once = case(
            1,
            phase,
            |_: CheckRequest| -> std::future::Ready<Vec<Issue>> { panic!("at once") },
        );
        assert_eq!(at_once.found().await, [expected.as_str()]);
    }
}

#[tokio::test]
async fn no_more_checks_are_under_way_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&now), Arc::clone(&most));
    let mut case = case(50, Phase::Render, move |_: CheckRequest| {
        let (now, most) = (Arc::clone(&counted.0), Arc::clone(&counted.1));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Vec::new()
        }
    });
    case.limits.parallelism = 3;
    assert_eq!(case.found().await, [""; 0]);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    case.limits.parallelism = 0;
    assert_eq!(case.found().await, [""; 0], "none at all would never end");
}

#[tokio::test]
async fn the_order_of_issues_does_not_depend_on_who_answers_first() {
    let case = case(10, Phase::Render, |request: CheckRequest| async move {
        let turns = 10 - request.node_id.as_str()[1..].parse().unwrap_or(0);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        vec![Issue::warning(Domain::Template, "late", Text::from("a b"))]
    });
    let expected: Vec<_> = (0..10)
        .map(|index| format!("template late? n{index} -"))
        .collect();
    assert_eq!(case.found().await, expected);
}
