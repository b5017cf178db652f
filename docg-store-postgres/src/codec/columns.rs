//! Rows of many records as one array for each column, which a statement unpacks with `unnest`.

/// The names of columns, with the types of their arrays.
pub(crate) type Columns = &'static [(&'static str, &'static str)];

/// SQL for columns as a table `alias`: `unnest` over the parameters from number `first` on. The arrays of
/// all groups have the same length, and stand side by side in the table.
pub(crate) fn unnest(groups: &[Columns], first: usize, alias: &str) -> String {
    let columns: Vec<_> = groups.iter().copied().flatten().zip(first..).collect();
    let parameters: Vec<_> = columns
        .iter()
        .map(|((_, sql), number)| format!("${number}::{sql}"))
        .collect();
    let names: Vec<_> = columns.iter().map(|((name, _), _)| *name).collect();
    format!(
        "unnest({}) AS {alias} ({})",
        parameters.join(", "),
        names.join(", ")
    )
}

/// As [`unnest`], for arrays of one element each. The server takes single elements faster than it unpacks
/// arrays.
pub(crate) fn single(groups: &[Columns], first: usize, alias: &str) -> String {
    let columns = groups.iter().copied().flatten().zip(first..);
    let element = |((name, sql), number): (&(&str, &str), usize)| {
        let (array, cast) = sql.split_once("::").unwrap_or((sql, ""));
        let cast = match cast.trim_end_matches("[]") {
            "" => String::new(),
            cast => format!("::{cast}"),
        };
        format!("(${number}::{array})[1]{cast} AS {name}")
    };
    let elements: Vec<_> = columns.map(element).collect();
    format!("(SELECT {}) AS {alias}", elements.join(", "))
}

/// Declares the row of a table: `column: Rust type = "array type"`. Arrays of JSON are sent as text.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident { $($column:ident: $type:ty = $sql:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name { $(pub(crate) $column: $type),+ }

        impl $name {
            pub(crate) const COLUMNS: $crate::codec::Columns = &[$((stringify!($column), $sql)),+];
            /// The number of parameters of the columns.
            #[allow(dead_code, reason = "a statement needs no count of its last columns")]
            pub(crate) const COUNT: usize = Self::COLUMNS.len();

            /// SQL for the rows as a table `alias`, with the parameters from number `first` on.
            #[allow(dead_code, reason = "some columns are only a part of a wider table")]
            pub(crate) fn unnest(first: usize, alias: &str) -> String {
                $crate::codec::unnest(&[Self::COLUMNS], first, alias)
            }

            /// Adds the rows to a statement's parameters, as one array for each column.
            pub(crate) fn bind<'r>(
                rows: impl Iterator<Item = &'r Self> + Clone,
                arguments: &mut sqlx::postgres::PgArguments,
            ) -> Result<(), sqlx::Error> {
                use sqlx::{Arguments, postgres::PgBindIterExt};
                $(arguments
                    .add(rows.clone().map(|row| &row.$column).bind_iter())
                    .map_err(sqlx::Error::Encode)?;)+
                Ok(())
            }
        }
    };
}
pub(crate) use row;

#[cfg(test)]
mod tests {
    use super::{Columns, single, unnest};

    #[test]
    fn groups_of_columns_stand_side_by_side_with_one_run_of_parameters() {
        let names: Columns = &[("id", "uuid[]"), ("name", "text[]::json[]")];
        let ages: Columns = &[("age", "int8[]")];
        assert_eq!(
            unnest(&[names, ages], 3, "i"),
            "unnest($3::uuid[], $4::text[]::json[], $5::int8[]) AS i (id, name, age)"
        );
        assert_eq!(unnest(&[ages], 1, "r"), "unnest($1::int8[]) AS r (age)");
        assert_eq!(
            single(&[names, ages], 3, "i"),
            "(SELECT ($3::uuid[])[1] AS id, ($4::text[])[1]::json AS name, ($5::int8[])[1] AS age) AS i"
        );
    }
}
