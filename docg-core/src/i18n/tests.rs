use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::error::codes;

/// The messages of a catalogue by key, each with all its lines. An entry begins in the first column; its
/// further lines are indented.
fn entries(source: &str) -> BTreeMap<&str, String> {
    let mut entries: BTreeMap<&str, String> = BTreeMap::new();
    let mut current = "";
    for line in source.lines() {
        if line.starts_with(|c: char| c.is_ascii_lowercase()) {
            let (key, text) = line.split_once(" = ").expect("an entry is `key = text`");
            assert!(
                entries.insert(key, text.to_owned()).is_none(),
                "{key} is there twice"
            );
            current = key;
        } else if line.starts_with(' ') {
            entries.entry(current).or_default().push_str(line);
        }
    }
    entries
}

/// The names of a message's placeholders.
fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split("{ $")
        .skip(1)
        .filter_map(|rest| rest.split([' ', '}']).next())
        .collect()
}

fn assert_in_both(key: &str) {
    for locale in Locale::ALL {
        assert!(
            message(locale, key, &[]).is_some(),
            "{key} is missing in {}",
            locale.tag()
        );
    }
}

#[test]
fn both_catalogues_parse_and_have_the_same_keys_and_placeholders() {
    for source in [EN, PT_BR] {
        assert!(FluentResource::try_new(source.to_owned()).is_ok());
    }
    let (english, portuguese) = (entries(EN), entries(PT_BR));
    assert_eq!(
        english.keys().collect::<Vec<_>>(),
        portuguese.keys().collect::<Vec<_>>()
    );
    for (key, text) in &english {
        assert_eq!(placeholders(text), placeholders(&portuguese[key]), "{key}");
        assert!(
            !text.trim().is_empty() && !portuguese[key].trim().is_empty(),
            "{key}"
        );
    }
}

/// The code may choose among several keys before it makes a text of one. So the test looks at every string
/// literal that looks like a key, not only at those in `Text::key`.
#[test]
fn every_key_in_the_code_is_in_the_catalogue() {
    let catalogue = entries(EN);
    let mut missing = BTreeSet::new();
    for file in walk(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))) {
        let source = std::fs::read_to_string(&file).expect("readable source");
        for literal in source.split('"') {
            let is_key = ["issue-", "error-", "log-", "action-", "fault-"]
                .iter()
                .any(|prefix| literal.starts_with(prefix))
                && !literal.ends_with('-')
                && literal
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if is_key && !catalogue.contains_key(literal) {
                missing.insert(format!("{literal} in {}", file.display()));
            }
        }
        let compact: String = source.split_whitespace().collect();
        for rest in compact.split("Text::key(\"").skip(1) {
            let key = rest.split('"').next().unwrap_or_default();
            if !catalogue.contains_key(key) {
                missing.insert(format!("{key} in {}", file.display()));
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

/// The source files without their tests.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .expect("source folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.file_stem().is_none_or(|name| name != "tests"))
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn every_code_that_preflight_can_give_has_a_message_in_both_languages() {
    for code in [
        codes::UNRESOLVED_VARIABLES,
        codes::MISSING_REQUIRED_FIELD,
        codes::INVALID_FIELD_FORMAT,
        codes::TEMPLATE_NOT_SELECTED,
        codes::TEMPLATE_NOT_FOUND,
        codes::TEMPLATE_INVALID_TAGS,
        codes::TEMPLATE_LARGE_FILE,
        codes::FOLDER_NOT_FOUND,
        codes::INSUFFICIENT_PERMISSIONS,
        codes::OAUTH_EXPIRED,
        codes::OAUTH_REVOKED,
        codes::API_KEY_INVALID,
        codes::CONNECTION_ERROR,
        codes::MISSING_RECIPIENT,
        codes::INVALID_EMAIL_FORMAT,
        codes::NO_SIGNERS,
        codes::SIGNER_MISSING_EMAIL,
        codes::DUPLICATE_SIGNER,
        codes::UNKNOWN_NODE_TYPE,
        codes::INVALID_CONDITION,
        "check_failed",
    ] {
        assert_in_both(&format!("issue-{}", code.replace(['_', '.'], "-")));
    }
}

#[test]
fn a_message_can_choose_its_words() {
    let vote = |decision| {
        Text::key("log-approval-vote")
            .with("email", "one@example.com")
            .with("decision", decision)
    };
    assert_eq!(
        vote("approved").render(Locale::En),
        "one@example.com has approved."
    );
    assert_eq!(
        vote("rejected").render(Locale::PtBr),
        "one@example.com não aprovou."
    );
}

#[test]
fn the_reader_s_language_is_chosen_by_quality() {
    assert_eq!(Locale::negotiate("pt-BR,pt;q=0.9,en;q=0.8"), Locale::PtBr);
    assert_eq!(Locale::negotiate("en;q=0.5, pt;q=0.8"), Locale::PtBr);
    assert_eq!(Locale::negotiate("de, en;q=0.1"), Locale::En);
    assert_eq!(Locale::negotiate("pt;q=0"), Locale::En);
    assert_eq!(Locale::negotiate(""), Locale::En);
}

#[test]
fn a_text_within_a_text_is_in_the_reader_s_language_too() {
    let inner = Text::key("log-signature-requested").with("count", 2);
    let text = Text::key("log-step-failed")
        .with("label", "Render")
        .with_text("error", inner.clone());
    for locale in Locale::ALL {
        assert!(text.render(locale).contains(&inner.render(locale)));
    }
    assert_ne!(inner.render(Locale::En), inner.render(Locale::PtBr));
    let stored = serde_json::to_value(&text).expect("writes");
    assert_eq!(
        stored["params"][0],
        serde_json::json!(["label", "Render"]),
        "plain words are stored as words"
    );
    let read: Text = serde_json::from_value(stored).expect("reads");
    assert_eq!(read, text);
}
