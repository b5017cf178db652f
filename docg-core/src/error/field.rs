use std::fmt;

use crate::i18n::{Locale, Text};

/// A fault in one field of a request or a definition: its value is well formed but wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field's place, as a JSON pointer (RFC 6901) into the checked value.
    pub pointer: String,
    /// The stable, machine-readable code.
    pub code: &'static str,
    /// A text that says what is wrong, or what would be right.
    pub detail: Text,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, detail) = (&self.pointer, self.detail.render(Locale::En));
        write!(f, "{place:?} ({}): {detail}", self.code)
    }
}

/// The largest number of faults that a log line or an error text on a console lists.
const TOLD: usize = 3;

/// Lists the first `TOLD` faults, and counts the others.
pub(crate) fn told(faults: &[FieldFault]) -> String {
    let first: Vec<_> = faults
        .iter()
        .take(TOLD)
        .map(FieldFault::to_string)
        .collect();
    match faults.len().saturating_sub(TOLD) {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

impl FieldFault {
    /// A fault of the field at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<Text>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        }
    }

    /// Prefixes the pointer with `place`: the place of the checked value in a larger value.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.pointer.insert_str(0, place);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_faults_names_the_first_places_and_counts_the_rest() {
        let faults: Vec<_> = (1..=5)
            .map(|n| FieldFault::new(format!("/nodes/{n}"), "too_long", format!("at most {n}")))
            .collect();
        assert_eq!(told(&faults[..1]), r#""/nodes/1" (too_long): at most 1"#);
        assert_eq!(
            told(&faults),
            "\"/nodes/1\" (too_long): at most 1; \"/nodes/2\" (too_long): at most 2; \
             \"/nodes/3\" (too_long): at most 3; and 2 more"
        );
    }
}
