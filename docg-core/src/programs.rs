//! Threads for evaluating tenants' programs: conditions, schemas and variables. The whole process shares a
//! few such threads.
//!
//! Each evaluation has a budget, so it ends. But a tenant can request many evaluations, each at its limit.
//! Evaluations queue for these threads, and not on the runtime's threads, which serve every tenant. The queue
//! is fair: organizations take turns, and one organization uses at most half of the threads, so that the
//! other organizations do not wait for its backlog. Cheap evaluations run on the caller's thread (see
//! [`is_small`]).
//!
//! The process does not wait for these threads when it ends.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::{
    ids::OrganizationId,
    workflow::{
        Node, condition,
        size::size_of,
        variables::{effective_params, has_variables},
    },
};

/// The stack of each thread. Large enough for validation, which recurses into the schema and the data; the
/// depths of both are limited.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// The cost up to which an evaluation runs on the caller's thread, roughly in operations of some nanoseconds.
const SMALL: usize = 100_000;

/// The size up to which a value is processed on the caller's thread: values, plus one for each 64 bytes of
/// text.
const LITTLE: usize = 1_000;

type Job = Box<dyn FnOnce() + Send>;

/// Runs a job on one of the pool's threads. If the caller drops the future before the job's turn, the job is
/// dropped. A panic of the job continues in the caller.
pub(crate) async fn run<T: Send + 'static>(
    organization: OrganizationId,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    static POOL: LazyLock<Pool> = LazyLock::new(Pool::start);
    let (answer, answered) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
    POOL.add(
        organization,
        Box::new(move || {
            if !answer.is_closed() {
                // Sending fails if the caller has gone away, and does not want the answer.
                let _ = answer.send(catch_unwind(AssertUnwindSafe(job)));
            }
        }),
    );
    match answered.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        // Every job runs and sends its result, unless its caller has gone away.
        Err(_) => unreachable!("the pool drops no job"),
    }
}

struct Pool {
    queue: &'static Queue,
    /// True if no thread could be started: jobs then run on the caller's thread.
    is_empty: bool,
}

impl Pool {
    fn start() -> Self {
        let threads = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(threads / 2)));
        let work = || loop {
            let (organization, job) = queue.next();
            job();
            queue.ended(organization);
        };
        let started = (0..threads).filter(|_| {
            let thread = thread::Builder::new()
                .name("docg-programs".to_owned())
                .stack_size(STACK_BYTES);
            match thread.spawn(work) {
                Ok(_) => true,
                Err(error) => {
                    tracing::error!("a thread for evaluation cannot be started: {error}");
                    false
                }
            }
        });
        Self {
            is_empty: started.count() == 0,
            queue,
        }
    }

    fn add(&self, organization: OrganizationId, job: Job) {
        if self.is_empty {
            job();
        } else {
            self.queue.add(organization, job);
        }
    }
}

/// Jobs by organization. `turns` lists the organizations that have a waiting job and are below their share of
/// threads.
struct Queue {
    lanes: Mutex<Lanes>,
    added: Condvar,
    /// The largest number of threads that one organization may use at once.
    share: usize,
}

#[derive(Default)]
struct Lanes {
    by_organization: HashMap<OrganizationId, Lane>,
    turns: VecDeque<OrganizationId>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    running: usize,
    has_turn: bool,
}

impl Queue {
    fn new(share: usize) -> Self {
        Self {
            lanes: Mutex::default(),
            added: Condvar::new(),
            share: share.max(1),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A panic cannot have poisoned the data: jobs run outside of the lock.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, organization: OrganizationId, job: Job) {
        let mut lanes = self.lanes();
        let lane = lanes.by_organization.entry(organization).or_default();
        lane.waiting.push_back(job);
        self.give_turn(&mut lanes, organization);
    }

    /// Waits for a job of an organization that is below its share of threads.
    fn next(&self) -> (OrganizationId, Job) {
        let mut lanes = self.lanes();
        loop {
            while let Some(organization) = lanes.turns.pop_front() {
                let Some(lane) = lanes.by_organization.get_mut(&organization) else {
                    continue;
                };
                lane.has_turn = false;
                if let Some(job) = lane.waiting.pop_front() {
                    lane.running += 1;
                    self.give_turn(&mut lanes, organization);
                    return (organization, job);
                }
            }
            lanes = self
                .added
                .wait(lanes)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, organization: OrganizationId) {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.by_organization.get_mut(&organization) {
            lane.running -= 1;
            if lane.running == 0 && lane.waiting.is_empty() {
                lanes.by_organization.remove(&organization);
                return;
            }
        }
        self.give_turn(&mut lanes, organization);
    }

    /// Queues an organization behind the others if it has a waiting job and is below its share of threads.
    fn give_turn(&self, lanes: &mut Lanes, organization: OrganizationId) {
        let Some(lane) = lanes.by_organization.get_mut(&organization) else {
            return;
        };
        if !lane.has_turn && !lane.waiting.is_empty() && lane.running < self.share {
            lane.has_turn = true;
            lanes.turns.push_back(organization);
            self.added.notify_one();
        }
    }
}

/// True if it is cheap to go through a value, for example to redact it.
pub(crate) fn is_little(value: &Value) -> bool {
    size_of(value, LITTLE) < LITTLE
}

/// True if the conditions and variables of these nodes are cheap over these data.
pub(crate) fn is_small<'a>(
    data: impl Iterator<Item = &'a Value>,
    nodes: impl Iterator<Item = &'a Node>,
    overrides: &Map<String, Value>,
) -> bool {
    let mut left = SMALL;
    let mut pay = |price: usize| {
        left = left.saturating_sub(price);
        left > 0
    };
    // Measure the data only if a condition or variable reads it.
    let (mut data, mut measured) = (Some(data), 0);
    let mut size = || {
        if let Some(data) = data.take() {
            measured = data.fold(0, |size, value| size + size_of(value, SMALL));
        }
        measured
    };
    for node in nodes {
        if let Some(when) = &node.when
            && !pay(condition::price(when, size()))
        {
            return false;
        }
        let params = effective_params(node, overrides);
        for value in params.values() {
            let own = size_of(value, SMALL);
            let price = if has_variables(value) {
                own.saturating_mul(size() / 16 + 1)
            } else {
                own
            };
            if !pay(price) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn organizations_take_turns_and_none_has_more_than_its_share() {
        let queue = Queue::new(2);
        let (busy, other) = (OrganizationId::new(), OrganizationId::new());
        for _ in 0..4 {
            queue.add(busy, Box::new(|| {}));
        }
        queue.add(other, Box::new(|| {}));
        let mut turns = Vec::new();
        for _ in 0..3 {
            turns.push(queue.next().0);
        }
        assert_eq!(
            turns,
            [busy, other, busy],
            "the other is not behind the backlog"
        );
        assert!(queue.lanes().turns.is_empty(), "the busy one has its share");
        queue.ended(busy);
        assert_eq!(queue.next().0, busy);
        queue.ended(other);
        assert!(!queue.lanes().by_organization.contains_key(&other));
    }

    #[tokio::test]
    async fn a_job_whose_caller_has_gone_is_not_run() {
        let organization = OrganizationId::new();
        let (release, released) = mpsc::channel::<()>();
        let (started, begun) = oneshot::channel();
        // This job takes up the organization's whole share of threads on a machine with two cores, and part
        // of the share elsewhere.
        let holder = tokio::spawn(run(organization, move || {
            let _ = started.send(());
            let _ = released.recv();
        }));
        begun.await.expect("it begins");
        let share = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)) / 2;
        let others: Vec<_> = (1..share)
            .map(|_| {
                let (go, wait) = mpsc::channel::<()>();
                let (started, begun) = oneshot::channel();
                let task = tokio::spawn(run(organization, move || {
                    let _ = started.send(());
                    let _ = wait.recv();
                }));
                (go, begun, task)
            })
            .collect();
        let mut gates = Vec::new();
        for (go, begun, task) in others {
            begun.await.expect("it begins");
            gates.push((go, task));
        }
        let (ran, has_run) = mpsc::channel::<()>();
        let mut abandoned = Box::pin(run(organization, move || ran.send(())));
        assert!(futures::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        drop(release);
        drop(gates);
        holder.await.expect("it ends");
        run(organization, || ()).await;
        assert!(has_run.recv().is_err(), "its turn came, and it was dropped");
    }

    #[tokio::test]
    async fn a_panic_of_a_job_reaches_its_caller_and_no_thread_is_lost() {
        for _ in 0..20 {
            let job = tokio::spawn(run(OrganizationId::new(), || {
                resume_unwind(Box::new("broken"))
            }));
            let ended: Result<(), _> = job.await;
            assert!(ended.expect_err("it panics").is_panic());
        }
        assert_eq!(run(OrganizationId::new(), || 7).await, 7);
    }
}
