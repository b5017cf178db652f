//! Plays a plan, stops the faults, waits until executions are at rest, and checks the invariants.

use std::{sync::Arc, time::Duration};

use docg_core::{
    engine::Engine, event::Event, ids::OrganizationId, ports::ExecutionStore, prelude::*,
    time::Clock,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    LEASE,
    clock::WallClock,
    faults::{Faults, Port},
    invariants::{self, Trail},
    outside::Outside,
    people::{Asked, Caller},
    plan::{Move, Plan, Wish},
    process::{PER_ORGANIZATION, Process, Shared},
    readers::{Server, watch_run},
};

/// The time without faults after which every execution is at rest, even if all its nodes use up all their
/// attempts and timeouts one after the other.
const CALM: Duration = Duration::from_secs(1_800);

/// The result of a simulation.
pub(crate) struct Played {
    store_calls: u64,
    bus_calls: u64,
    /// The last status of each execution.
    pub(crate) statuses: Vec<Status>,
}

impl Played {
    pub(crate) fn calls_of(&self, port: Port) -> u64 {
        match port {
            Port::Store => self.store_calls,
            Port::Bus => self.bus_calls,
        }
    }
}

/// Plays a plan in its own runtime.
pub(crate) fn play(plan: &Plan) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(plan).await;
        for step in &plan.moves {
            world.play(step).await;
        }
        world.calm_down().await;
        Played {
            store_calls: world.shared.store_faults.calls(),
            bus_calls: world.shared.bus_faults.calls(),
            statuses: world.check().await,
        }
    })
}

/// Plays a plan without faults, and returns the total time for which workers were idle while executions were due.
pub(crate) fn idle_beside_due(plan: &Plan) -> Duration {
    const TICK: Duration = Duration::from_millis(50);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(plan).await;
        for step in &plan.moves {
            world.play(step).await;
        }
        let mut idle = Duration::ZERO;
        loop {
            tokio::time::sleep(TICK).await;
            let due = world
                .shared
                .store
                .unserved(Arc::default(), world.shared.clock.now());
            if due.await.expect("reads").is_empty() {
                break;
            }
            let engines = world.processes.iter().map(|process| &process.engine);
            let at_work = engines.map(Engine::active_executions).sum::<usize>();
            let free = PER_ORGANIZATION.saturating_sub(at_work);
            idle += TICK * u32::try_from(free).expect("a few");
        }
        world.calm_down().await;
        world.check().await;
        idle
    })
}

struct Reader {
    execution: ExecutionId,
    after: u64,
    seen: watch::Receiver<Vec<Arc<Event>>>,
}

struct World {
    shared: Shared,
    organization: OrganizationId,
    workflows: Vec<WorkflowId>,
    processes: Vec<Process>,
    servers: watch::Sender<Vec<Server>>,
    runs: Vec<ExecutionId>,
    readers: Vec<Reader>,
    asking: Vec<JoinHandle<Asked>>,
}

impl World {
    async fn new(plan: &Plan) -> Self {
        let clock = Arc::new(WallClock::new());
        let shared = Shared {
            outside: Arc::new(Outside::new(Arc::clone(&clock))),
            clock,
            store: Arc::new(MemoryStore::default()),
            bus: Arc::new(MemoryBus::default()),
            store_faults: Arc::new(Faults::new(&[])),
            bus_faults: Arc::new(Faults::new(&[])),
        };
        let organization = OrganizationId::new();
        let first = Process::begin(&shared);
        let mut workflows = Vec::new();
        for nodes in &plan.workflows {
            let draft = json!({"name": "simulated", "nodes": nodes});
            let draft = serde_json::from_value(draft).expect("readable");
            let id = WorkflowId::new();
            let stored = first.engine.put_workflow(organization, id, draft, None);
            stored.await.expect("a valid definition");
            workflows.push(id);
        }
        first.shut_down().await;
        let shared = Shared {
            store_faults: Arc::new(Faults::new(&plan.store_faults)),
            bus_faults: Arc::new(Faults::new(&plan.bus_faults)),
            ..shared
        };
        let mut world = Self {
            processes: (0..plan.processes)
                .map(|_| Process::begin(&shared))
                .collect(),
            shared,
            organization,
            workflows,
            servers: watch::Sender::new(Vec::new()),
            runs: Vec::new(),
            readers: Vec::new(),
            asking: Vec::new(),
        };
        world.tell_servers();
        world
    }

    fn tell_servers(&mut self) {
        let servers = self.processes.iter();
        let servers = servers.map(|process| (process.engine.clone(), process.life.clone()));
        self.servers.send_replace(servers.collect());
    }

    async fn play(&mut self, step: &Move) {
        match step {
            Move::Wait(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
            Move::Start(which) => self.start(*which).await,
            Move::Watch(run, after) => self.watch(self.runs[run % self.runs.len()], *after),
            Move::Ask(run, process, wish) => self.ask(*run, *process, *wish),
            Move::CutOff(process, millis, kind) => {
                let process = &self.processes[process % self.processes.len()];
                process.cut_off(Duration::from_millis(*millis), *kind);
            }
            Move::Kill(process) => self.replace(*process).die(),
            Move::Replace(process) => {
                let old = self.replace(*process);
                tokio::spawn(old.shut_down());
            }
            Move::SetClock(millis) => {
                self.shared.clock.shift(*millis);
                if *millis > 0 {
                    // Wait for a lease's duration. A process that started now could not notice the jump, and
                    // would claim executions whose leases their holders have not renewed since.
                    tokio::time::sleep(LEASE).await;
                }
            }
        }
    }

    /// Puts a new process in the place of an old one, and returns the old one.
    fn replace(&mut self, process: usize) -> Process {
        let index = process % self.processes.len();
        let new = Process::begin(&self.shared);
        let old = std::mem::replace(&mut self.processes[index], new);
        self.tell_servers();
        old
    }

    /// Starts an execution. The caller repeats the call, with the same idempotency key, until it is answered.
    async fn start(&mut self, which: usize) {
        let workflow = self.workflows[which % self.workflows.len()];
        let key = format!("run-{}", self.runs.len());
        for turn in self.runs.len().. {
            let actor = Actor::user("starter");
            let request = StartRequest::new(self.organization, workflow, actor);
            let request = request.idempotency_key(key.as_str());
            let engine = &self.processes[turn % self.processes.len()].engine;
            if let Ok(started) = engine.start(request).await {
                self.runs.push(started.record.execution.id);
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn watch(&mut self, execution: ExecutionId, after: u64) {
        let (sender, seen) = watch::channel(Vec::new());
        let servers = self.servers.subscribe();
        tokio::spawn(watch_run(
            servers,
            self.organization,
            execution,
            after,
            sender,
        ));
        self.readers.push(Reader {
            execution,
            after,
            seen,
        });
    }

    fn ask(&mut self, run: usize, process: usize, wish: Wish) {
        let process = &self.processes[process % self.processes.len()];
        let caller = Caller {
            server: (process.engine.clone(), process.life.clone()),
            organization: self.organization,
            execution: self.runs[run % self.runs.len()],
            actor: Actor::user(format!("caller-{}", self.asking.len())),
            outside: Arc::clone(&self.shared.outside),
            store: Arc::clone(&self.shared.store),
        };
        self.asking.push(tokio::spawn(caller.ask(wish)));
    }

    /// Stops the faults, and waits until every execution is at rest.
    async fn calm_down(&mut self) {
        self.shared.store_faults.stop();
        self.shared.bus_faults.stop();
        tokio::time::sleep(CALM + self.shared.clock.set_back()).await;
    }

    async fn check(self) -> Vec<Status> {
        let mut statuses = Vec::new();
        let mut asked = Vec::new();
        for asking in self.asking {
            asked.push(asking.await.expect("callers do not panic"));
        }
        for run in self.runs {
            let store = &self.shared.store;
            let trail = Trail::read(store, self.organization, run).await;
            statuses.push(trail.status());
            assert_eq!(
                store.signals(run).await.expect("reads"),
                [],
                "nothing is left in the inbox"
            );
            invariants::check_run(&trail);
            invariants::check_calls(&trail, &asked);
            invariants::check_effects(&trail, &self.shared.outside);
            for reader in self.readers.iter().filter(|it| it.execution == run) {
                invariants::check_reader(&trail, reader.after, &reader.seen.borrow());
            }
        }
        statuses
    }
}
