//! The queue of executions that need a worker or are leased.
//!
//! Other executions are not in the queue, so an ended one costs nothing here. The queue has a level for each
//! priority. In a level, each organization has its own lines, ordered by time, and the organizations take
//! turns, so a flood of executions delays only its own organization. Organizations whose first execution is
//! not due yet are kept in a separate set, ordered by that time, so that a claim examines only due
//! executions.
//!
//! An execution's entry, under its own lock, determines the execution's place in the queue. Each change of
//! the place increments the entry's `generation`. A claim takes executions from the queue without their
//! locks, and then drops those whose entry has changed meanwhile.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::Unserved,
    time::Timestamp,
};

use super::types::TypeSet;
use crate::hash::{IdMap, IdSet};

type Slot = (Timestamp, ExecutionId);

/// An execution that a worker cannot run: the time from which it is due, its id and its organization.
pub(super) type Left = (Timestamp, ExecutionId, OrganizationId);

/// An execution's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// No place in the queue: the execution needs no worker, or only a signal can make it due.
    Nothing,
    /// In a line, due from `at` on.
    Worker {
        at: Timestamp,
        priority: i16,
        types: TypeSet,
    },
    /// Leased, until this time.
    Leased { until: Timestamp },
}

/// A worker's request for due executions.
pub(super) struct Ask<'a> {
    pub(super) now: Timestamp,
    pub(super) lease_until: Timestamp,
    pub(super) limit: usize,
    pub(super) per_organization: usize,
    /// For each [`TypeSet`], true if the worker has all its types.
    pub(super) allowed: &'a [bool],
}

/// The executions that a claim took from the queue. The queue already counts them as leased.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Each execution, with its generation when the queue gave it out.
    pub(super) executions: Vec<(ExecutionId, u64)>,
    pub(super) next_due: Option<Timestamp>,
    /// True if a due execution was left only because its organization has its full share of leases.
    pub(super) held_back: bool,
}

#[derive(Default)]
pub(super) struct DueQueue {
    places: IdMap<ExecutionId, Place>,
    levels: BTreeMap<Reverse<i16>, Level>,
    leases: BTreeSet<Slot>,
    leased: IdMap<OrganizationId, usize>,
    /// Organizations whose executions a claim has held back because of their share. An organization is
    /// removed when it releases a lease.
    awaited: IdSet<OrganizationId>,
    turn: u64,
}

struct Place {
    generation: u64,
    organization: OrganizationId,
    /// The time when the execution is due, or its lease expires.
    at: Timestamp,
    /// The line that the execution is in, by priority and node types; `None` while it is leased.
    line: Option<(i16, TypeSet)>,
}

/// Executions of one priority.
#[derive(Default)]
struct Level {
    tenants: IdMap<OrganizationId, Tenant>,
    /// Organizations that may have a due execution, by their turn.
    ready: BTreeSet<(u64, OrganizationId)>,
    /// Organizations without a due execution, by the time of their first execution.
    later: BTreeSet<(Timestamp, OrganizationId)>,
}

/// One organization's executions of one priority.
struct Tenant {
    /// One line per set of node types; no line is empty.
    lines: Vec<(TypeSet, BTreeSet<Slot>)>,
    /// The earliest time in all lines.
    first: Timestamp,
    /// The organization's turn in `ready`; `None` while it is in `later`.
    turn: Option<u64>,
}

impl DueQueue {
    /// Moves an execution from its previous place, if any, to the place that its entry determined.
    pub(super) fn place(
        &mut self,
        id: ExecutionId,
        organization: OrganizationId,
        generation: u64,
        want: Want,
    ) {
        if let Some(place) = self.places.remove(&id) {
            match place.line {
                Some((priority, types)) => {
                    self.leave_line(priority, place.organization, types, (place.at, id))
                }
                None => self.end_lease(place.organization, (place.at, id)),
            }
        }
        let (at, line) = match want {
            Want::Nothing => return,
            Want::Worker {
                at,
                priority,
                types,
            } => {
                self.levels.entry(Reverse(priority)).or_default().insert(
                    organization,
                    types,
                    (at, id),
                );
                (at, Some((priority, types)))
            }
            Want::Leased { until } => {
                self.leases.insert((until, id));
                *self.leased.entry(organization).or_default() += 1;
                (until, None)
            }
        };
        self.places.insert(
            id,
            Place {
                generation,
                organization,
                at,
                line,
            },
        );
    }

    /// Executions whose lease has expired by the queue's record. A renewal does not update the queue, so the
    /// caller asks the execution's entry.
    pub(super) fn run_out(&self, now: Timestamp) -> Vec<ExecutionId> {
        self.leases
            .iter()
            .take_while(|(until, _)| *until <= now)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Takes due executions, the highest priority first and organizations in turn.
    pub(super) fn take(&mut self, ask: &Ask<'_>) -> Taken {
        let mut taken = Taken::default();
        if ask.limit == 0 || ask.per_organization == 0 {
            return taken;
        }
        let Self {
            places,
            levels,
            leases,
            leased,
            awaited,
            turn,
        } = self;
        let mut held_back = Vec::new();
        let mut emptied = false;
        'levels: for level in levels.values_mut() {
            level.promote(ask.now, turn);
            let mut passed = Bound::Unbounded;
            while let Some(&(its_turn, organization)) =
                level.ready.range((passed, Bound::Unbounded)).next()
            {
                if taken.executions.len() == ask.limit {
                    taken.next_due = Some(ask.now);
                    break 'levels;
                }
                passed = Bound::Excluded((its_turn, organization));
                if leased
                    .get(&organization)
                    .is_some_and(|held| *held >= ask.per_organization)
                {
                    let tenant = level.tenants.get(&organization);
                    let first = tenant.and_then(|tenant| tenant.earliest(ask.allowed));
                    if first.is_some_and(|(_, slot)| slot.0 <= ask.now) {
                        held_back.push(organization);
                    }
                    continue;
                }
                let Some(tenant) = level.tenants.get_mut(&organization) else {
                    continue;
                };
                match tenant.earliest(ask.allowed) {
                    Some((index, slot)) if slot.0 <= ask.now => {
                        let id = slot.1;
                        tenant.remove(index, slot);
                        leases.insert((ask.lease_until, id));
                        *leased.entry(organization).or_default() += 1;
                        if let Some(place) = places.get_mut(&id) {
                            place.at = ask.lease_until;
                            place.line = None;
                            taken.executions.push((id, place.generation));
                        }
                        level.served(organization, its_turn, turn);
                    }
                    found => {
                        earlier(&mut taken.next_due, found.map(|(_, slot)| slot.0));
                        if tenant.first > ask.now {
                            level.postpone(organization, its_turn);
                        }
                    }
                }
            }
            earlier(
                &mut taken.next_due,
                level.later.first().map(|(first, _)| *first),
            );
            emptied |= level.tenants.is_empty();
        }
        if emptied {
            levels.retain(|_, level| !level.tenants.is_empty());
        }
        earlier(&mut taken.next_due, leases.first().map(|(until, _)| *until));
        taken.held_back = !held_back.is_empty();
        awaited.extend(held_back);
        taken
    }

    /// True if a claim held back executions of this organization since the last call. The caller has released
    /// one of its leases, and a worker may claim again.
    pub(super) fn is_share_awaited(&mut self, organization: OrganizationId) -> bool {
        self.awaited.remove(&organization)
    }

    /// Executions due before `before` that a worker cannot run, by their set of node types. Those that have
    /// been due longest come first, at most [`Unserved::MOST`] per set.
    pub(super) fn left(&self, allowed: &[bool], before: Timestamp) -> BTreeMap<TypeSet, Vec<Left>> {
        let mut left: BTreeMap<_, Vec<Left>> = BTreeMap::new();
        let tenants = self.levels.values().flat_map(|level| &level.tenants);
        for (organization, tenant) in tenants {
            let lines = tenant.lines.iter();
            for (types, line) in lines.filter(|(types, _)| !types.is_in(allowed)) {
                let due = line.iter().take_while(|(at, _)| *at < before);
                let due: Vec<_> = due
                    .take(Unserved::MOST)
                    .map(|(at, id)| (*at, *id, *organization))
                    .collect();
                if !due.is_empty() {
                    left.entry(*types).or_default().extend(due);
                }
            }
        }
        for due in left.values_mut() {
            due.sort_unstable();
            due.truncate(Unserved::MOST);
        }
        left
    }

    /// The number of leased executions of an organization.
    pub(super) fn leased_of(&self, organization: OrganizationId) -> usize {
        self.leased.get(&organization).copied().unwrap_or_default()
    }

    /// The number of executions in a line or leased.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn leave_line(
        &mut self,
        priority: i16,
        organization: OrganizationId,
        types: TypeSet,
        slot: Slot,
    ) {
        let Some(level) = self.levels.get_mut(&Reverse(priority)) else {
            return;
        };
        level.remove(organization, types, slot);
        if level.tenants.is_empty() {
            self.levels.remove(&Reverse(priority));
        }
    }

    fn end_lease(&mut self, organization: OrganizationId, slot: Slot) {
        self.leases.remove(&slot);
        if let Some(held) = self.leased.get_mut(&organization) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.leased.remove(&organization);
            }
        }
    }
}

impl Level {
    fn insert(&mut self, organization: OrganizationId, types: TypeSet, slot: Slot) {
        let Some(tenant) = self.tenants.get_mut(&organization) else {
            let lines = vec![(types, BTreeSet::from([slot]))];
            self.tenants.insert(
                organization,
                Tenant {
                    lines,
                    first: slot.0,
                    turn: None,
                },
            );
            self.later.insert((slot.0, organization));
            return;
        };
        match tenant.lines.iter_mut().find(|(line, _)| *line == types) {
            Some((_, line)) => {
                line.insert(slot);
            }
            None => tenant.lines.push((types, BTreeSet::from([slot]))),
        }
        if slot.0 < tenant.first {
            if tenant.turn.is_none() {
                self.later.remove(&(tenant.first, organization));
                self.later.insert((slot.0, organization));
            }
            tenant.first = slot.0;
        }
    }

    fn remove(&mut self, organization: OrganizationId, types: TypeSet, slot: Slot) {
        let Some(tenant) = self.tenants.get_mut(&organization) else {
            return;
        };
        let Some(index) = tenant.lines.iter().position(|(line, _)| *line == types) else {
            return;
        };
        let (first, turn) = (tenant.first, tenant.turn);
        tenant.remove(index, slot);
        let (now_first, is_empty) = (tenant.first, tenant.lines.is_empty());
        if turn.is_none() && (is_empty || now_first != first) {
            self.later.remove(&(first, organization));
            if !is_empty {
                self.later.insert((now_first, organization));
            }
        }
        if is_empty {
            if let Some(turn) = turn {
                self.ready.remove(&(turn, organization));
            }
            self.tenants.remove(&organization);
        }
    }

    /// Moves the organizations that now have a due execution into `ready`, behind those that wait for their
    /// turn.
    fn promote(&mut self, now: Timestamp, turn: &mut u64) {
        while let Some(&(first, organization)) = self.later.first()
            && first <= now
        {
            self.later.pop_first();
            if let Some(tenant) = self.tenants.get_mut(&organization) {
                *turn += 1;
                tenant.turn = Some(*turn);
                self.ready.insert((*turn, organization));
            }
        }
    }

    /// After an organization's turn, puts it at the end of `ready`, or removes it if it has no executions
    /// left.
    fn served(&mut self, organization: OrganizationId, its_turn: u64, turn: &mut u64) {
        self.ready.remove(&(its_turn, organization));
        let Some(tenant) = self.tenants.get_mut(&organization) else {
            return;
        };
        if tenant.lines.is_empty() {
            self.tenants.remove(&organization);
        } else {
            *turn += 1;
            tenant.turn = Some(*turn);
            self.ready.insert((*turn, organization));
        }
    }

    fn postpone(&mut self, organization: OrganizationId, its_turn: u64) {
        self.ready.remove(&(its_turn, organization));
        if let Some(tenant) = self.tenants.get_mut(&organization) {
            tenant.turn = None;
            self.later.insert((tenant.first, organization));
        }
    }
}

impl Tenant {
    /// The first execution that the worker can run, and the index of its line.
    fn earliest(&self, allowed: &[bool]) -> Option<(usize, Slot)> {
        self.lines
            .iter()
            .enumerate()
            .filter(|(_, (types, _))| types.is_in(allowed))
            .filter_map(|(index, (_, line))| Some((index, *line.first()?)))
            .min_by_key(|(_, slot)| *slot)
    }

    fn remove(&mut self, index: usize, slot: Slot) {
        let line = &mut self.lines[index].1;
        line.remove(&slot);
        if line.is_empty() {
            self.lines.swap_remove(index);
        }
        if slot.0 <= self.first {
            let firsts = self.lines.iter().filter_map(|(_, line)| line.first());
            self.first = firsts.map(|slot| slot.0).min().unwrap_or(self.first);
        }
    }
}

fn earlier(earliest: &mut Option<Timestamp>, other: Option<Timestamp>) {
    if let Some(other) = other {
        *earliest = Some(earliest.map_or(other, |known| known.min(other)));
    }
}
