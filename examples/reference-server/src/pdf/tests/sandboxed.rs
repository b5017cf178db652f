//! Tests that a template reaches nothing outside its sandbox, and that an error names its place.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{CONTRACT, contract, folder, render, sample, text, today};
use crate::pdf::{
    Pdf, RenderError, RenderRequest, TemplateProblem, Templates, TemplatesError, bundle,
};

const NOTHING_REQUIRED: &str = r#"{"description": "A test.", "required": []}"#;

fn one(source: &str) -> Templates {
    Templates::new([
        ("t.typ", source.to_owned()),
        ("t.json", NOTHING_REQUIRED.to_owned()),
    ])
    .unwrap()
}

fn set(source: &str, data: &Value) -> Result<Pdf, RenderError> {
    render(&one(source), RenderRequest::new("t.typ", data, today()))
}

fn problem(source: &str, data: &Value) -> TemplateProblem {
    match set(source, data) {
        Err(RenderError::InvalidTemplate {
            template,
            mut problems,
        }) => {
            assert_eq!(template, "t.typ");
            problems.remove(0)
        }
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn a_template_reads_no_file_of_the_machine() {
    assert!(Path::new("/etc/passwd").exists());
    for source in [
        "#read(\"/etc/passwd\")",
        "#read(\"../../../../../../etc/passwd\")",
        "#image(\"/etc/passwd\")",
        "#include \"/etc/passwd\"",
        "#import \"/etc/passwd\": x",
        "#plugin(\"/etc/passwd\")",
        "#read(\"Cargo.toml\")",
    ] {
        let problem = problem(source, &json!({}));
        assert!(
            problem.message.contains("not among the bundled files")
                || problem.message.contains("escape"),
            "{source}: {problem}"
        );
        assert_eq!(problem.line, Some(1), "{source}");
    }
}

#[test]
fn a_template_imports_no_package_and_opens_no_connection() {
    for source in [
        "#import \"@preview/example:0.1.0\": x",
        "#import \"@local/example:0.1.0\": x",
    ] {
        let problem = problem(source, &json!({}));
        assert!(
            problem.message.contains("templates use no packages"),
            "{problem}"
        );
    }
    let problem = problem("#image(\"https://example.com/logo.png\")", &json!({}));
    assert!(
        problem.message.contains("not among the bundled files"),
        "{problem}"
    );
}

#[test]
fn a_tag_that_nothing_fills_is_named_with_its_place() {
    let source = "#let data = json(\"/data.json\")\nDear\n#data.customer.name,";
    let found = problem(source, &json!({"customer": {}}));
    assert_eq!(
        (found.file.as_deref(), found.line),
        (Some("t.typ"), Some(3))
    );
    assert_eq!(found.message, "dictionary does not contain key \"name\"");
    assert_eq!(found.excerpt.as_deref(), Some("data.customer.name"));
    let found = problem("#nobody-defined-this", &json!({}));
    assert_eq!(found.message, "unknown variable: nobody-defined-this");
}

#[test]
fn broken_syntax_is_named_with_its_place() {
    let found = problem("Fine.\n#let x = (1, 2\n", &json!({}));
    assert_eq!(
        (found.message.as_str(), found.line),
        ("unclosed delimiter", Some(2))
    );
    assert_eq!(found.column, Some(10));
}

#[test]
fn endless_loops_and_recursion_end() {
    for (source, expected) in [
        (
            "#let x = 0\n#while x < 1 { x = 0 }",
            "loop seems to be infinite",
        ),
        (
            "#let f(x) = f(x + 1)\n#f(0)",
            "maximum function call depth exceeded",
        ),
    ] {
        let found = problem(source, &json!({}));
        assert!(found.message.contains(expected), "{found}");
    }
}

#[test]
fn today_is_what_the_caller_says() {
    let pdf = set(
        "#datetime.today().display() #datetime.today(offset: 14).display()",
        &json!({}),
    );
    assert_eq!(text(&pdf.unwrap()), "2026-01-15 2026-01-15");
}

#[test]
fn equal_input_gives_equal_bytes() {
    let data = sample("good");
    let first = contract(&data).unwrap();
    // Render other data in between and clear Typst's cache, so that the second result is not the cached one.
    contract(&sample("good.pt-BR")).unwrap();
    typst::comemo::evict(0);
    assert_eq!(first.bytes, contract(&data).unwrap().bytes);
}

#[test]
fn renderings_at_the_same_time_do_not_mix() {
    let templates = Templates::bundled();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let templates = &templates;
            scope.spawn(move || {
                let mut data = sample("good");
                data["customer"]["name"] = json!(format!("Customer {i} Ltd"));
                let pdf = render(templates, RenderRequest::new(CONTRACT, &data, today())).unwrap();
                assert!(text(&pdf).contains(&format!("Customer {i} Ltd")));
            });
        }
    });
}

#[test]
fn an_unknown_template_is_told_from_a_broken_one() {
    for name in [
        "nothing.typ",
        "",
        "contract",
        "./contract.typ",
        "parts/format.typ",
        "contract.json",
    ] {
        let templates = Templates::bundled();
        assert!(!templates.contains(name), "{name}");
        let refused = render(&templates, RenderRequest::new(name, &json!({}), today()));
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, RenderError::UnknownTemplate { known, .. } if known == &[CONTRACT])
        );
        assert_eq!(error.code(), "template_not_found");
    }
}

#[test]
fn templates_tell_their_text_and_size() {
    let templates = Templates::bundled();
    assert_eq!(templates.names().collect::<Vec<_>>(), [CONTRACT]);
    let source = templates.source(CONTRACT).unwrap();
    assert!(source.contains("json(\"/data.json\")"));
    assert!(templates.size(CONTRACT).unwrap() > source.len());
    assert_eq!(templates.source("nothing.typ"), None);
}

#[test]
fn a_template_s_size_counts_what_it_may_use_and_no_other_template() {
    let declared = r#"{"description": "", "required": []}"#;
    let templates = Templates::new([
        ("a.typ", "four"),
        ("a.json", declared),
        ("b.typ", "another"),
        ("b.json", declared),
        ("assets/logo.svg", "<svg/>"),
    ]);
    assert_eq!(templates.unwrap().size("a.typ"), Some(10));
}

#[test]
fn files_that_make_no_templates_are_named() {
    let undeclared = Templates::new([("t.typ", "x")]).unwrap_err();
    assert!(matches!(undeclared, TemplatesError::Undeclared { name } if name == "t.typ"));
    let outside = Templates::new([("../t.typ", "x")]).unwrap_err();
    assert!(matches!(outside, TemplatesError::Path { path, .. } if path == "../t.typ"));
    let binary = Templates::new([("t.typ", [0xFF_u8, 0xFE])]).unwrap_err();
    assert!(matches!(binary, TemplatesError::NotText { path } if path == "t.typ"));
    let misspelt = Templates::new([("t.json", r#"{"requires": []}"#)]).unwrap_err();
    assert!(matches!(misspelt, TemplatesError::Declaration { path, .. } if path == "t.json"));
}

#[test]
fn every_file_of_the_folder_is_compiled_in() {
    let root = folder("templates");
    let mut found = BTreeSet::new();
    let mut due: Vec<PathBuf> = vec![root.clone()];
    while let Some(path) = due.pop() {
        if path.is_dir() {
            due.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            found.insert(
                path.strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    let listed: BTreeSet<String> = bundle::FILES
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    assert_eq!(listed, found);
}
