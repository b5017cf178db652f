use std::fmt;

use subtle::ConstantTimeEq;

/// A secret text: an API token, the key of a webhook's signature. Prints as `***` and compares in constant
/// time.
///
/// ```
/// use docg_core::signature::Secret;
///
/// let token = Secret::new("s3cr3t");
/// assert_eq!(format!("{token} {token:?}"), "*** ***");
/// assert!(token.matches("s3cr3t") && !token.matches("s3cr3T"));
/// assert_eq!(token.hide("401 for s3cr3t"), "401 for ***");
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text as a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret text itself, for the call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if the secret equals the given text. The duration of the comparison reveals at most the length.
    #[must_use]
    pub fn matches(&self, given: impl AsRef<[u8]>) -> bool {
        self.0.as_bytes().ct_eq(given.as_ref()).into()
    }

    /// Replaces every occurrence of the secret in a text.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        text.replace(&self.0, "***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
