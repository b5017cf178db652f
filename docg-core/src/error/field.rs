use crate::i18n::Text;

/// A value of a request or a definition that is well formed and wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// Where, as a JSON pointer into what was given (RFC 6901).
    pub pointer: String,
    /// Stable and machine-readable.
    pub code: &'static str,
    /// What is wrong, or what would be right.
    pub detail: Text,
}

impl FieldFault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<Text>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        }
    }

    /// The same within a larger value, in which it lies at `place`.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.pointer.insert_str(0, place);
        self
    }
}
