//! The statements that list and count executions.
//!
//! Each combination of filters and order has its own text, and so its own plan. All take the same parameters:
//! `$1` the limit, `$2` the organization, `$3` and `$4` the place after which the list goes on, `$5` the statuses, `$6`
//! the kinds of wait, `$7` the workflow, `$8` and `$9` the first moment of creation and the end, `$10` the search.

use std::{
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    query::{
        ExecutionCounts, ExecutionFilter, ExecutionQuery, ExecutionRecord, ExecutionSort, Page,
    },
    run::{Status, WaitKind},
};
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::{
    PgStore,
    reads::{bare_columns, limit, page},
    sql::execution_columns,
};
use crate::{
    codec::{Time, field, name, number, record, search_query},
    database::arguments,
    error::Error,
};

/// How many names a filter has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Number {
    None,
    One,
    Several,
}

impl Number {
    fn of<T>(names: &[T]) -> Self {
        match names {
            [] => Self::None,
            [_] => Self::One,
            _ => Self::Several,
        }
    }

    /// The condition that a column has one of the names in a parameter; empty if there are none.
    fn condition(self, column: &str, names: &str) -> String {
        match self {
            Self::None => String::new(),
            Self::One => format!(" AND e.{column} = ({names}::text[])[1]"),
            Self::Several => format!(" AND e.{column} = ANY ({names}::text[])"),
        }
    }
}

/// The choices that determine the text of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// The order of a list; `None` for a count.
    sort: Option<ExecutionSort>,
    statuses: Number,
    kinds: Number,
    has_workflow: bool,
    has_range: bool,
    has_search: bool,
    /// True if the statement reads only the columns that the server can always read.
    is_bare: bool,
}

impl Shape {
    fn of(filter: &ExecutionFilter, sort: Option<ExecutionSort>) -> Self {
        Self {
            sort,
            statuses: Number::of(&filter.statuses),
            kinds: Number::of(&filter.waiting_for),
            has_workflow: filter.workflow_id.is_some(),
            has_range: filter.created_from.is_some() || filter.created_to.is_some(),
            has_search: filter.search.is_some() || filter.correlation_id.is_some(),
            is_bare: false,
        }
    }

    /// The statement of this shape. There are few shapes, so each is made once and kept.
    fn statement(self) -> &'static str {
        static KNOWN: LazyLock<RwLock<HashMap<Shape, &'static str>>> =
            LazyLock::new(RwLock::default);
        if let Some(known) = KNOWN
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&self)
        {
            return known;
        }
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(self).or_insert_with(|| {
            let sql = match self.sort {
                Some(sort) => self.list(sort),
                None => self.count(),
            };
            Box::leak(sql.into_boxed_str())
        })
    }

    /// The conditions of the filters on execution `e`. If the statement takes each name of a column by itself, as
    /// `one.name`, that column is `each`.
    fn conditions(self, each: Option<&str>) -> String {
        let mut conditions = String::new();
        let columns = [
            ("status", "$5", self.statuses),
            ("waiting_kind", "$6", self.kinds),
        ];
        for (column, names, number) in columns {
            conditions += &match each {
                Some(each) if each == column => format!(" AND e.{column} = one.name"),
                _ => number.condition(column, names),
            };
        }
        if self.has_workflow {
            conditions += " AND e.workflow_id = $7";
        }
        if self.has_range {
            conditions += " AND e.created_at >= coalesce($8, '-infinity')
                AND e.created_at < coalesce($9, 'infinity')";
        }
        if self.has_search {
            // An array is made before the list is read, and so by the index of the search.
            conditions += " AND e.id = ANY (ARRAY(
                SELECT s.execution_id FROM docg.execution_data s WHERE s.search @@ $10::tsquery))";
        }
        conditions
    }

    fn list(self, sort: ExecutionSort) -> String {
        let columns = if self.is_bare {
            bare_columns!()
        } else {
            execution_columns!()
        };
        let (order, compare, end) = if sort.is_descending() {
            ("DESC", "<", "infinity")
        } else {
            ("ASC", ">", "-infinity")
        };
        let by = if sort.is_by_change() {
            "updated_at"
        } else {
            "created_at"
        };
        // At most a page of the executions that meet a condition, in the order of a column.
        let part = |condition: &str, by: &str, after: &str, each: Option<&str>| {
            format!(
                "SELECT e.* FROM docg.executions e WHERE e.organization_id = $2 AND {condition}
                    (e.{by}, e.id) {compare} ({after}, $4) {} ORDER BY e.{by} {order}, e.id {order} LIMIT $1",
                self.conditions(each)
            )
        };
        // A page of the executions of several parts, each of which has its own page.
        let first = |parts: String| {
            format!("(SELECT e.* FROM {parts} ORDER BY e.{by} {order}, e.id {order} LIMIT $1) e")
        };
        let found = if sort.is_by_change() {
            let after = format!("coalesce($3, '{end}')");
            let rested = part("e.rested_at IS NOT NULL AND", "rested_at", &after, None);
            let leased = part("e.expires_at IS NOT NULL AND", "updated_at", &after, None);
            first(format!("(({rested}) UNION ALL ({leased})) e"))
        } else {
            // The page continues after the creation time that is stored for the last execution of the page
            // before, because readers see a substitute if that time cannot be read. If that execution is gone,
            // the page continues after the time that the reader saw.
            let after = format!(
                "coalesce((SELECT x.created_at FROM docg.executions x
                    WHERE x.id = $4 AND x.organization_id = $2), $3, '{end}')"
            );
            // Read the first of each status or kind, not all of them: each has its part of an index.
            let each = match (self.has_search, self.kinds, self.statuses) {
                (true, ..) => None,
                (_, Number::Several, _) => Some(("$6", "waiting_kind")),
                (_, Number::None, Number::Several) => Some(("$5", "status")),
                _ => None,
            };
            let of_each = part("", by, &after, each.map(|(_, column)| column));
            match each {
                Some((names, _)) => first(format!(
                    "unnest({names}::text[]) one(name) CROSS JOIN LATERAL ({of_each}) e"
                )),
                None => format!("({of_each}) e"),
            }
        };
        format!(
            "SELECT {columns} FROM {found} LEFT JOIN docg.execution_data d ON d.execution_id = e.id
            ORDER BY e.{by} {order}, e.id {order} LIMIT $1"
        )
    }

    fn count(self) -> String {
        let conditions = self.conditions(None);
        let executions = format!("docg.executions e WHERE e.organization_id = $2 {conditions}");
        format!(
            "SELECT false AS waits, e.status AS name, count(*) AS count, NULL AS since
            FROM {executions} GROUP BY e.status
            UNION ALL
            SELECT true, e.waiting_kind, count(*), min((e.waiting_for ->> 'since') COLLATE \"C\")
            FROM {executions} AND e.waiting_kind IS NOT NULL GROUP BY e.waiting_kind"
        )
    }
}

impl PgStore {
    fn list_arguments(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
        (limit, after): (i64, (Option<Time>, Uuid)),
    ) -> Result<PgArguments, Error> {
        let statuses: Vec<&str> = filter.statuses.iter().map(|it| it.as_str()).collect();
        let kinds: Result<Vec<String>, Error> = filter.waiting_for.iter().map(name).collect();
        let search = search_query(organization, filter);
        Ok(arguments![
            limit,
            organization.0,
            after.0,
            after.1,
            statuses,
            kinds?,
            filter.workflow_id.map(|id| id.0),
            filter.created_from.map(Time::from),
            filter.created_to.map(Time::from),
            self.encoder.optional_text("search", search.as_deref())?
        ])
    }

    pub(super) async fn list_executions(
        &self,
        query: ExecutionQuery,
    ) -> Result<Page<ExecutionRecord>, Error> {
        // Without `after`, the list begins at the end of time, or at its beginning.
        let first = if query.sort.is_descending() {
            Uuid::max()
        } else {
            Uuid::nil()
        };
        let after = query
            .after
            .map_or((None, ExecutionId(first)), |(at, id)| (Some(at), id));
        let place = (limit(query.limit), (after.0.map(Time::from), after.1.0));
        let parameters = self.list_arguments(query.organization_id, &query.filter, place)?;
        let shape = Shape::of(&query.filter, Some(query.sort));
        match self
            .database
            .read(shape.statement(), parameters.clone())
            .await
        {
            Err(error) if error.is_unreadable() => {
                let bare = Shape {
                    is_bare: true,
                    ..shape
                };
                let rows = self.database.read(bare.statement(), parameters).await?;
                self.one_by_one(page(&rows, query.limit, record)?).await
            }
            rows => page(&rows?, query.limit, record),
        }
    }

    pub(super) async fn count_executions(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
    ) -> Result<ExecutionCounts, Error> {
        let parameters = self.list_arguments(organization, filter, (0, (None, Uuid::nil())))?;
        let shape = Shape::of(filter, None);
        let mut counts = ExecutionCounts::default();
        for row in self.database.read(shape.statement(), parameters).await? {
            let of: &str = field(&row, "name")?;
            let count = number(&row, "count")?;
            if field(&row, "waits")? {
                let kinds = WaitKind::ALL.into_iter();
                let mut kinds = kinds.filter(|kind| name(kind).is_ok_and(|name| name == of));
                let since: Option<&str> = field(&row, "since")?;
                if let Some(kind) = kinds.next() {
                    let since = since.and_then(|since| since.parse().ok());
                    counts.waiting[kind as usize].add(count, since);
                }
            } else if let Ok(status) = of.parse::<Status>() {
                counts.by_status[status as usize] += count;
            }
        }
        Ok(counts)
    }
}
