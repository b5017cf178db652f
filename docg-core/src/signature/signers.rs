use serde::{Deserialize, de};
use serde_json::Value;

use super::NewSigner;
use crate::workflow::param::signers::read;

/// The largest number of signers of one request.
pub const MAX_SIGNERS: usize = 50;
/// The highest turn that a signer can have.
pub const MAX_ORDER: u32 = 1_000;

/// The value of a parameter of the kind [`Signers`](crate::workflow::ParamKind::Signers), for the type of a
/// handler's parameters.
///
/// Deserializing it applies the rules of preflight: at most [`MAX_SIGNERS`] signers, each with an address of
/// their own, optionally a name, and optionally a turn from 1 to [`MAX_ORDER`]. Turns may have gaps; signers
/// of the same turn are asked together. If a signer has no name, the display name of the address is used.
///
/// ```
/// use docg_core::signature::Signers;
///
/// let given = serde_json::json!([{"email": "Silva, Ana <ana@example.com>", "order": 1}]);
/// let signers: Signers = serde_json::from_value(given)?;
/// let signers = signers.into_vec();
/// assert_eq!(signers[0].email, "ana@example.com");
/// assert_eq!(signers[0].name.as_deref(), Some("Silva, Ana"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers(Vec<NewSigner>);

impl Signers {
    /// The signers, in the given order.
    #[must_use]
    pub fn into_vec(self) -> Vec<NewSigner> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Signers {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        read(&value).map(Self).map_err(|faults| {
            let faults = faults.iter().map(|fault| {
                let why = fault.tech.as_deref().unwrap_or(fault.code);
                format!("{}: {why}", fault.field("signers"))
            });
            de::Error::custom(faults.collect::<Vec<_>>().join("; "))
        })
    }
}
