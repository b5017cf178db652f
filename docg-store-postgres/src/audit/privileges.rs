//! Finds rights with which the store's own role could bypass the triggers that guard the audit trail.

use docg_core::ports::StoreError;
use sqlx::postgres::PgArguments;

use crate::{PgStore, codec::field, error::Error, store::warn_once};

impl PgStore {
    /// Logs a warning if the store's role could change the audit trail: as a superuser, as the owner of its
    /// table, or by a privilege. Each [`connect`](Self::connect) calls this. An application that passes in
    /// a pool calls this itself, once the schema exists.
    pub async fn warn_of_privileges(&self) {
        match self.audit_privileges().await {
            Ok(None) => {}
            Ok(Some(way)) => warn_once(format!(
                "the role that docg works as {way}: it could get around the guards of the audit \
                 trail. Work as another role, with the rights that `reference-server print-migrations \
                 --grants ROLE` prints (grants_sql)"
            )),
            // The schema may not exist yet.
            Err(error) => tracing::debug!("the role's privileges cannot be read: {error}"),
        }
    }

    /// How the store's role could change the audit trail, in words that follow "the role", such as "is a
    /// superuser"; `None` if it cannot.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer.
    pub async fn audit_privileges(&self) -> Result<Option<&'static str>, StoreError> {
        self.privileges()
            .await
            .map_err(|e| e.at("audit_privileges"))
    }

    async fn privileges(&self) -> Result<Option<&'static str>, Error> {
        let sql = "SELECT
                (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) AS is_super,
                (SELECT pg_has_role(current_user, c.relowner, 'MEMBER')
                    FROM pg_class c WHERE c.oid = to_regclass('docg.audit_events')) AS is_owner,
                has_table_privilege(to_regclass('docg.audit_events'),
                    'UPDATE, DELETE, TRUNCATE, TRIGGER') AS may_change";
        let rows = self.database.read(sql, PgArguments::default()).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let is = |column| Ok::<bool, Error>(field::<Option<bool>>(row, column)?.unwrap_or(false));
        Ok(if is("is_super")? {
            Some("is a superuser")
        } else if is("is_owner")? {
            Some("owns the audit trail's table")
        } else if is("may_change")? {
            Some("may change rows of the audit trail")
        } else {
            None
        })
    }
}
