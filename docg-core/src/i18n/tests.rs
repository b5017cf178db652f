use std::collections::BTreeSet;

use super::*;

/// The message names of a catalogue: entries begin in the first column.
fn keys(source: &str) -> BTreeSet<&str> {
    source
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(" =").map(|(key, _)| key))
        .collect()
}

/// The placeholders of each message, by name.
fn placeholders(source: &str, key: &str) -> BTreeSet<String> {
    let line = source.lines().find(|line| line.starts_with(&format!("{key} ="))).unwrap_or_default();
    line.split("{ $").skip(1).filter_map(|rest| rest.split([' ', '}']).next()).map(str::to_owned).collect()
}

#[test]
fn both_catalogues_parse_and_have_the_same_keys_and_placeholders() {
    for source in [EN, PT_BR] {
        assert!(FluentResource::try_new(source.to_owned()).is_ok());
    }
    assert_eq!(keys(EN), keys(PT_BR));
    for key in keys(EN) {
        assert_eq!(placeholders(EN, key), placeholders(PT_BR, key), "{key}");
    }
}

#[test]
fn every_key_in_the_code_is_in_the_catalogue() {
    let catalogue = keys(EN);
    let mut missing = BTreeSet::new();
    for file in walk(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let source = std::fs::read_to_string(&file).expect("readable source");
        let compact: String = source.split_whitespace().collect::<Vec<_>>().join("");
        for rest in compact.split("Text::key(\"").skip(1) {
            let key = rest.split('"').next().unwrap_or_default();
            if !catalogue.contains(key) {
                missing.insert(key.to_owned());
            }
        }
    }
    // This file's own search pattern is not a key.
    missing.retain(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    missing.remove("");
    assert_eq!(missing, BTreeSet::new());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .expect("source folder")
        .map(|entry| entry.expect("entry").path())
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs") && !path.ends_with("i18n/tests.rs"))
        .collect()
}

#[test]
fn the_reader_s_language_is_chosen_by_quality() {
    assert_eq!(Locale::negotiate("pt-BR,pt;q=0.9,en;q=0.8"), Locale::PtBr);
    assert_eq!(Locale::negotiate("en;q=0.5, pt;q=0.8"), Locale::PtBr);
    assert_eq!(Locale::negotiate("de, en;q=0.1"), Locale::En);
    assert_eq!(Locale::negotiate("pt;q=0"), Locale::En);
    assert_eq!(Locale::negotiate(""), Locale::En);
}
