//! Points in time, durations, and the clock that the engine is given.

use std::{fmt, ops::Add, str::FromStr, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::{sync::watch, time::Instant};

/// Milliseconds since the Unix epoch, UTC. On the wire: RFC 3339 with `Z` and milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The present moment of the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(Utc::now().timestamp_millis())
    }

    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to `self`; zero where the clock went back.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// This moment and `millis` milliseconds.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)),
        )
    }

    fn to_chrono(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0)
            .single()
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        self.plus_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.to_chrono()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .to_chrono()
                .to_rfc3339_opts(SecondsFormat::Millis, true),
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

impl FromStr for Timestamp {
    type Err = chrono::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text).map(|time| Self(time.timestamp_millis()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// What time it is, and how much of it passes. [`SystemClock`] in service, [`ManualClock`] in tests.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment: what is written down, and told to others. It may be set back or forth.
    fn now(&self) -> Timestamp;
    /// How much time has passed since some moment in the past. It grows steadily, whatever becomes of
    /// [`now`](Self::now): intervals and deadlines of this process go by it.
    fn elapsed(&self) -> Duration;
    /// Returns once so much time has passed.
    async fn sleep(&self, duration: Duration);
}

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until it is moved by hand.
#[derive(Debug, Clone)]
pub struct ManualClock(watch::Sender<Hands>);

#[derive(Debug, Clone, Copy)]
struct Hands {
    now: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(watch::Sender::new(Hands {
            now: start,
            elapsed: Duration::ZERO,
        }))
    }

    /// Lets time pass, and wakes whoever has slept long enough.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|hands| {
            hands.now = hands.now + by;
            hands.elapsed += by;
        });
    }

    /// Sets what the clock shows, back or forth, without any time passing.
    pub fn set(&self, now: Timestamp) {
        self.0.send_modify(|hands| hands.now = now);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.borrow().now
    }

    fn elapsed(&self) -> Duration {
        self.0.borrow().elapsed
    }

    async fn sleep(&self, duration: Duration) {
        let end = self.elapsed().saturating_add(duration);
        // An error means that the sender is gone, which `self` rules out.
        let mut hands = self.0.subscribe();
        let _ = hands.wait_for(|hands| hands.elapsed >= end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_utc_with_milliseconds() {
        let time: Timestamp = "2026-01-15T07:30:00.5-03:00".parse().expect("valid");
        assert_eq!(time.to_string(), "2026-01-15T10:30:00.500Z");
        assert_eq!(
            serde_json::to_value(time).expect("serializes"),
            "2026-01-15T10:30:00.500Z"
        );
    }

    #[test]
    fn a_clock_that_went_back_gives_no_negative_duration() {
        assert_eq!(
            Timestamp::from_millis(5).millis_since(Timestamp::from_millis(9)),
            0
        );
    }

    #[tokio::test]
    async fn who_sleeps_heeds_no_clock_that_is_set() {
        let clock = ManualClock::new(Timestamp::from_millis(0));
        let mut sleeping = std::pin::pin!(clock.sleep(Duration::from_secs(2)));
        assert!(futures::poll!(&mut sleeping).is_pending());
        clock.set(Timestamp::from_millis(3_600_000));
        assert!(futures::poll!(&mut sleeping).is_pending());
        clock.set(Timestamp::from_millis(-3_600_000));
        clock.advance(Duration::from_secs(2));
        assert!(futures::poll!(&mut sleeping).is_ready());
        assert_eq!(clock.now(), Timestamp::from_millis(-3_598_000));
    }
}
