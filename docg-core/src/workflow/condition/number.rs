//! Numbers of conditions: exact, whatever their size and form.

use std::{cmp::Ordering, fmt};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

/// The largest number of digits of a literal, before and after the point together.
const MOST_DIGITS: usize = 400;
/// The largest size of a result, in bits of numerator or denominator; about as large as `MOST_DIGITS`.
const MOST_BITS: u64 = 1_400;
/// The highest power that `**` accepts.
const HIGHEST_POWER: i64 = 64;

/// An exact number. Most are small whole numbers, and need no allocation.
#[derive(Debug, Clone)]
pub(super) enum Number {
    Small(i64),
    Exact(Box<BigRational>),
}

/// An operation on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Division, rounded down.
    Floor,
    /// The remainder of `Floor`; it has the sign of the divisor.
    Remainder,
    Power,
}

impl Number {
    /// Parses a number in JSON's syntax. `None` if the text is not a number, or has too many digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(small) = text.parse() {
            return Some(Self::Small(small));
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole.trim_start_matches(['-', '+']);
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let signs = whole.len() - digits.len();
        if signs > 1
            || digits.is_empty()
            || digits.len() + fraction.len() > MOST_DIGITS
            || !is_digits(digits)
            || !is_digits(fraction)
            || mantissa.ends_with('.')
        {
            return None;
        }
        let numerator: BigInt = format!("{whole}{fraction}").parse().ok()?;
        let scale = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let power = u32::try_from(scale.unsigned_abs()).ok()?;
        if power as usize > MOST_DIGITS {
            return numerator.is_zero().then_some(Self::Small(0));
        }
        let ten = BigInt::from(10).pow(power);
        Some(Self::of(if scale < 0 {
            BigRational::new(numerator, ten)
        } else {
            BigRational::from_integer(numerator * ten)
        }))
    }

    pub(super) fn of_json(number: &serde_json::Number) -> Option<Self> {
        match number.as_i64() {
            Some(small) => Some(Self::Small(small)),
            None => Self::parse(&number.to_string()),
        }
    }

    pub(super) fn of_count(count: usize) -> Self {
        Self::of(BigRational::from_integer(count.into()))
    }

    fn of(exact: BigRational) -> Self {
        match exact.is_integer().then(|| exact.numer().to_i64()) {
            Some(Some(small)) => Self::Small(small),
            _ => Self::Exact(Box::new(exact)),
        }
    }

    fn exact(&self) -> BigRational {
        match self {
            Self::Small(small) => BigRational::from_integer((*small).into()),
            Self::Exact(exact) => (**exact).clone(),
        }
    }

    /// The number as an `i64`; `None` for fractions and larger numbers.
    pub(super) fn as_whole(&self) -> Option<i64> {
        match self {
            Self::Small(small) => Some(*small),
            Self::Exact(_) => None,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Small(_) => true,
            Self::Exact(exact) => exact.is_integer(),
        }
    }

    pub(super) fn apply(&self, operation: Arithmetic, other: &Self) -> Result<Self, &'static str> {
        if let (Self::Small(left), Self::Small(right)) = (self, other) {
            let small = match operation {
                Arithmetic::Add => left.checked_add(*right),
                Arithmetic::Subtract => left.checked_sub(*right),
                Arithmetic::Multiply => left.checked_mul(*right),
                _ => None,
            };
            if let Some(small) = small {
                return Ok(Self::Small(small));
            }
        }
        let (left, right) = (self.exact(), other.exact());
        let divides = matches!(
            operation,
            Arithmetic::Divide | Arithmetic::Floor | Arithmetic::Remainder
        );
        if divides && right.is_zero() {
            return Err("a number is divided by zero");
        }
        let result = match operation {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Floor => (left / right).floor(),
            Arithmetic::Remainder => {
                let floor = (&left / &right).floor();
                left - right * floor
            }
            Arithmetic::Power => match other.as_whole() {
                Some(power @ 0..=HIGHEST_POWER) => left.pow(i32::try_from(power).unwrap_or(0)),
                _ => return Err("a power must be a whole number from 0 to 64"),
            },
        };
        Self::kept(result)
    }

    fn kept(result: BigRational) -> Result<Self, &'static str> {
        if result.numer().bits().max(result.denom().bits()) > MOST_BITS {
            return Err("a number becomes too large");
        }
        Ok(Self::of(result))
    }

    pub(super) fn negated(&self) -> Self {
        Self::of(-self.exact())
    }

    pub(super) fn absolute(&self) -> Self {
        Self::of(self.exact().abs())
    }

    /// Rounds to `digits` digits after the point, halves away from zero.
    pub(super) fn rounded(&self, digits: u32) -> Self {
        let scale = BigRational::from_integer(BigInt::from(10).pow(digits));
        Self::of((self.exact() * &scale).round() / scale)
    }

    /// Removes the digits after the point.
    pub(super) fn truncated(&self) -> Self {
        Self::of(self.exact().trunc())
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Small(left), Self::Small(right)) => left.cmp(right),
            _ => self.exact().cmp(&other.exact()),
        }
    }
}

/// Formats a whole number as digits, and any other number as a fraction: `7/2`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small(small) => small.fmt(f),
            Self::Exact(exact) => exact.fmt(f),
        }
    }
}
