//! Tests of the engine through its public API, over the store and bus in memory.

mod approvals;
mod building;
mod cancels;
mod commits;
mod control;
mod durations;
mod faulty;
mod idempotency;
mod interrupted;
mod leases;
mod lifecycle;
mod limits;
mod lost_answers;
mod organization_feed;
mod places;
mod publishing;
mod relay;
mod signatures;
mod takeover;
mod unclaimable;
mod unstorable;
mod waits;
mod workers;
mod world;
