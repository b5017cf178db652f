//! An execution that kills its workers waits for a person after [`MAX_TAKEOVERS`] takeovers, and harms no
//! other execution.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use docg_core::{
    engine::{Fact, Observer, Resume, Workers},
    error::codes,
    ports::MAX_TAKEOVERS,
    prelude::*,
    run::WaitKind,
    time::{ManualClock, Timestamp},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::world::{World, builder, soon};

/// Panics in the driver of each of the first `kills` claims.
struct Killer {
    claims: AtomicU32,
    kills: u32,
    claimed: mpsc::UnboundedSender<u32>,
}

impl Observer for Killer {
    fn observe(&self, fact: &Fact<'_>) {
        if let Fact::Claimed { .. } = fact {
            let claim = self.claims.fetch_add(1, Ordering::SeqCst) + 1;
            self.claimed.send(claim).expect("the test listens");
            assert!(claim > self.kills, "the worker dies");
        }
    }
}

struct Doomed {
    world: World,
    workers: Workers,
    clock: ManualClock,
    claimed: mpsc::UnboundedReceiver<u32>,
    /// How often the handler was called.
    calls: Arc<AtomicU32>,
    /// How often the handler was probed for the outcome of its effect.
    probes: Arc<AtomicU32>,
}

impl Doomed {
    /// A world whose workers die in the first `kills` claims.
    fn new(kills: u32) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let calls = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&calls);
        let probes = Arc::<AtomicU32>::default();
        let asked = Arc::clone(&probes);
        let spec = NodeSpec::new("effect", Phase::Save);
        let handler = effect(spec, move |_, _: Value| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { StepOutcome::done(json!({})) }
        });
        let handler = handler.probe(move |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Probe::NotDone }
        });
        let world = World::new(builder().clock(Arc::new(clock.clone())).step(handler));
        let (sender, claimed) = mpsc::unbounded_channel();
        world.engine.observe(Arc::new(Killer {
            claims: AtomicU32::new(0),
            kills,
            claimed: sender,
        }));
        Self {
            workers: world.workers(),
            world,
            clock,
            claimed,
            calls,
            probes,
        }
    }

    async fn start(&self) -> ExecutionId {
        let nodes = json!([{"id": "a", "type": "effect"}]);
        self.world.start(nodes).await
    }

    /// Advances the clock until `wanted` claims have been made.
    async fn claims(&mut self, wanted: u32) {
        soon(async {
            loop {
                match self.claimed.try_recv() {
                    Ok(claim) if claim == wanted => return,
                    Ok(_) => {}
                    Err(_) => {
                        self.clock.advance(Duration::from_secs(1));
                        for _ in 0..20 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_execution_that_kills_its_workers_waits_for_a_person_and_others_go_on() {
    let mut doomed = Doomed::new(MAX_TAKEOVERS);
    let id = doomed.start().await;
    doomed.claims(MAX_TAKEOVERS + 1).await;
    let world = &doomed.world;
    let parked = world.until_status(id, Status::NeedsReview).await;
    let error = parked.error.expect("the reason");
    assert_eq!(error.code, codes::TOO_MANY_INTERRUPTIONS);
    assert_eq!(parked.waiting_for.expect("waits").kind, WaitKind::Review);
    assert_eq!(doomed.calls.load(Ordering::SeqCst), 0);

    let other = doomed.start().await;
    world.until_status(other, Status::Completed).await;
    // After a person has resumed the execution, takeovers are counted from zero again.
    let resumed = world.engine.resume(world.control(id), Resume::default());
    resumed.await.expect("is allowed");
    world.until_status(id, Status::Completed).await;
    assert_eq!(doomed.calls.load(Ordering::SeqCst), 2);
    doomed.workers.shutdown().await;
}

#[tokio::test]
async fn an_execution_that_kills_fewer_workers_than_the_limit_completes() {
    let mut doomed = Doomed::new(MAX_TAKEOVERS - 1);
    let id = doomed.start().await;
    doomed.claims(MAX_TAKEOVERS).await;
    doomed.world.until_status(id, Status::Completed).await;
    assert_eq!(doomed.probes.load(Ordering::SeqCst), 0, "nothing had begun");
    doomed.workers.shutdown().await;
}

#[tokio::test]
async fn a_cancel_that_no_worker_lived_to_apply_ends_the_execution_without_calling_its_handlers() {
    let mut doomed = Doomed::new(MAX_TAKEOVERS);
    let id = doomed.start().await;
    doomed.claims(2).await;
    let control = doomed.world.control(id);
    let canceled = doomed.world.engine.cancel(control, None).await;
    canceled.expect("is accepted");
    doomed.claims(MAX_TAKEOVERS + 1).await;
    doomed.world.until_status(id, Status::Canceled).await;
    assert_eq!(doomed.calls.load(Ordering::SeqCst), 0);
    assert_eq!(doomed.probes.load(Ordering::SeqCst), 0);
    doomed.workers.shutdown().await;
}
