//! Renders in child processes: no template and no data can end the server, and each fault is reported.

mod support;

use std::time::Duration;

use chrono::NaiveDate;
use docg_core::{
    engine::{ControlRequest, Repair},
    i18n::Locale,
    ids::OrganizationId,
    observe::Actor,
    run::Status,
};
use reference_server::{
    pdf::{Pdf, RenderError, Templates},
    renders::{Limits, RenderFailure, Renderer},
};
use serde_json::{Value, json};
use support::{Harness, PROGRAM, Ran};

fn templates(source: &str) -> Templates {
    let declaration = r#"{"description": "A test.", "required": []}"#;
    let files = [
        ("t.typ", source.to_owned()),
        ("t.json", declaration.to_owned()),
    ];
    Templates::new(files).expect("a template")
}

/// A renderer of these templates with low limits.
fn renderer(source: &str) -> Renderer {
    let mut limits = Limits::default();
    limits.memory = 512 * 1024 * 1024;
    limits.time = Duration::from_secs(5);
    limits.wall_time = Duration::from_secs(600);
    Renderer::with_program(PROGRAM, templates(source), limits)
}

async fn set(renderer: &Renderer, data: Value) -> Result<Pdf, RenderFailure> {
    let today = NaiveDate::from_ymd_opt(2026, 1, 15).expect("a date");
    let organization = OrganizationId::new();
    let rendering = renderer.render(organization, "t.typ".to_owned(), data, today);
    rendering.await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_template_does_is_an_outcome_and_the_next_render_is_well() {
    for source in [
        "#range(1000000000).len()",
        "#(\"a\" * 1000000000)",
        "#{ let x = (1,); for i in range(40) { x = x + x }; x.len() }",
        "#for i in range(9000) { for j in range(9000) { let x = calc.pow(1.0001, i + j) } }",
        "#range(3000).map(i => pagebreak()).join()",
        "#image(bytes(\"<svg xmlns='http://www.w3.org/2000/svg' width='1e9' height='1e9'/>\"), width: 1e12pt)",
        "#plugin(bytes(\"x\"))",
        "#read(\"/etc/passwd\")",
        "#while true {}",
        "#let f(x) = f(x + 1)\n#f(0)",
    ] {
        let source = format!("#if json(\"/data.json\").bomb [{source}] else [Well.]");
        let renderer = renderer(&source);
        let bombed = set(&renderer, json!({"bomb": true})).await;
        match bombed {
            Err(RenderFailure::Document(
                RenderError::TooLarge(_) | RenderError::InvalidTemplate { .. },
            )) => {}
            // Typst scales huge pictures down.
            Ok(pdf) => assert!(source.contains("svg"), "{source}: {pdf:?}"),
            Err(other) => panic!("{source}: {other}"),
        }
        let well = set(&renderer, json!({"bomb": false})).await;
        assert_eq!(well.expect("it renders").pages, 1, "{source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_is_too_large_by_its_cpu_time_and_too_late_by_the_clock() {
    let source =
        "#for i in range(9000) { for j in range(9000) { let x = calc.pow(1.0001, i + j) } }";
    let mut limits = Limits::default();
    limits.time = Duration::from_secs(1);
    limits.wall_time = Duration::from_secs(600);
    let renderer = Renderer::with_program(PROGRAM, templates(source), limits.clone());
    let ended = set(&renderer, json!({})).await;
    let Err(RenderFailure::Document(RenderError::TooLarge(what))) = ended else {
        panic!("{ended:?}");
    };
    assert!(what.contains("SIGXCPU"), "{what}");

    // The same document, with no time to render it.
    limits.wall_time = Duration::ZERO;
    let renderer = Renderer::with_program(PROGRAM, templates(source), limits);
    let late = set(&renderer, json!({})).await;
    assert!(matches!(late, Err(RenderFailure::TimedOut(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_render_is_no_fault_of_the_data() {
    for program in ["/nowhere/reference-server", "/bin/true"] {
        let renderer = Renderer::with_program(program, templates("x"), Limits::default());
        let refused = set(&renderer, json!({})).await;
        assert!(
            matches!(refused, Err(RenderFailure::Unavailable(_))),
            "{program}: {refused:?}"
        );
    }
}

/// The sample contract with another address of the customer.
fn contract(address: &str) -> Value {
    let mut data: Value =
        serde_json::from_str(include_str!("../samples/contract.good.json")).expect("a sample");
    data["customer"]["address"] = json!(address);
    data
}

async fn render(harness: &Harness, trigger: Value) -> Ran {
    let nodes = json!([{"id": "render", "type": "render-pdf",
        "params": {"template": "contract.typ", "data": "{{trigger}}"}}]);
    harness.run(nodes, trigger).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_template_says_against_the_data_is_told_to_people() {
    let long = format!("too   long\\n{}", "x".repeat(1_000));
    for (source, says) in [
        (
            "#assert(false, message: \"The end lies before the start.\")",
            Some("The end lies before the start."),
        ),
        (
            "#assert.eq(1, 2, message: \"The sum is wrong.\")",
            Some("The sum is wrong."),
        ),
        (
            "#assert.ne(1, 1, message: \"The parties are one.\")",
            Some("The parties are one."),
        ),
        ("#panic(\"No such currency.\")", Some("No such currency.")),
        (&format!("#panic(\"{long}\")"), Some("too long x")),
        ("#(9223372036854775807 + 1)", None),
        ("#(1 / 0)", None),
        ("#datetime(year: 2026, month: 13, day: 1)", None),
        ("#(1 + \"a\")", None),
        ("#(1 in 2)", None),
        ("#(upper(1))", None),
        ("#assert(false)", None),
        ("#panic()", None),
        ("#nothing-of-that-name", None),
    ] {
        let refused = set(&renderer(source), json!({})).await;
        let Err(RenderFailure::Document(error)) = refused else {
            panic!("{source}: {refused:?}");
        };
        let refusal = error.refusal();
        assert_eq!(refusal.is_some(), says.is_some(), "{source}: {error}");
        if let (Some(refusal), Some(says)) = (refusal, says) {
            assert!(
                refusal.starts_with(says) && refusal.len() <= 300,
                "{refusal}"
            );
        }
        let is_misfit = source.starts_with("#(") || source.starts_with("#datetime");
        assert_eq!(error.misfit().is_some(), is_misfit, "{source}: {error}");
        let code = if says.is_some() || is_misfit {
            "invalid_field_format"
        } else {
            "template_invalid_tags"
        };
        assert_eq!(error.code(), code, "{source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_contradict_each_other_wait_for_a_person_who_reads_what_the_template_says() {
    let harness = Harness::offline();
    for (pointer, value, says) in [
        (
            "/discount_cents",
            json!(1_000_000_000),
            "discount_cents must lie between zero and the subtotal",
        ),
        (
            "/contract/end_date",
            json!("2020-01-31"),
            "end_date lies before data.contract.start_date",
        ),
        (
            "/contract/start_date",
            json!("9999-12-31"),
            "start_date is too late",
        ),
    ] {
        let mut data = contract("A street");
        if pointer == "/contract/start_date" {
            data["contract"]["end_date"] = value.clone();
        }
        *data.pointer_mut(pointer).expect("it is there") = value;
        let ran = render(&harness, data).await;
        assert_eq!(
            (ran.status(), ran.code()),
            (Status::NeedsReview, "invalid_field_format"),
            "{}",
            ran.tech()
        );
        assert_eq!(ran.actions, ["fix_field_format"]);
        let error = ran.record.execution.error.as_ref().expect("an error");
        for locale in Locale::ALL {
            let human = error.human.render(locale);
            assert!(human.contains(says), "{human}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_cannot_be_set_wait_for_a_person_and_go_on_when_they_are_mended() {
    let harness = Harness::offline();
    for address in [
        // Breaks Typst's shaper.
        format!("a{}", "\u{301}".repeat(130_000)),
        // Exceeds the limit of a document's data.
        "x".repeat(1_100_000),
    ] {
        let ran = render(&harness, contract(&address)).await;
        assert_eq!(
            (ran.status(), ran.blame()),
            (Status::NeedsReview, "render_too_large".to_owned()),
            "{}",
            ran.tech()
        );
        assert_eq!(ran.actions, ["reduce_data"]);
        let id = ran.record.execution.id;
        let request = ControlRequest::new(harness.organization, id, Actor::user("test"));
        let changes = Repair::default().trigger_data("customer", json!({"address": "A street"}));
        harness
            .engine
            .resume(request, changes.into())
            .await
            .expect("it goes on");
        let ended = harness.ended(id).await;
        assert_eq!(
            ended.status(),
            Status::Completed,
            "{} {}",
            ended.code(),
            ended.tech()
        );
    }
}
