//! Compares the schema of a database with the schema that this program knows.

use migrations::{Migrator, MigratorTrait};
use sea_orm_migration::SchemaManager;

use crate::{Store, StoreError};

/// One migration, and whether the migration has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationState {
    /// The name of the migration.
    pub name: String,
    /// Whether this database has applied the migration.
    pub applied: bool,
    /// Whether this program knows the migration; if not, a newer program applied the migration.
    pub known: bool,
}

impl MigrationState {
    /// Refuses a database that a newer program has migrated: this program would write data that the newer one does not
    /// expect.
    pub fn refuse_newer(states: &[Self]) -> Result<(), StoreError> {
        let newer = states.iter().filter(|state| !state.known);
        let names: Vec<_> = newer.map(|state| state.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(StoreError::Settings(format!(
            "this database was migrated by a newer wxgate ({}): run that version, or revert the migrations with that version's `wxgate migrate down`",
            names.join(", ")
        )))
    }
}

impl Store {
    /// All migrations of this program with the state in this database, then the migrations of a newer program that this
    /// database has.
    pub async fn migrations(&self) -> Result<Vec<MigrationState>, StoreError> {
        // The first migration creates the table of applied migrations. This function only reads, so it does not create
        // the table.
        let table = Migrator::migration_table_name().to_string();
        let is_new = !SchemaManager::new(self.migrating())
            .has_table(table)
            .await?;
        let applied = if is_new {
            Vec::new()
        } else {
            Migrator::get_migration_models(self.migrating()).await?
        };
        let applied: Vec<String> = applied.into_iter().map(|model| model.version).collect();
        let mut states: Vec<MigrationState> = Migrator::migrations()
            .iter()
            .map(|migration| MigrationState {
                name: migration.name().to_owned(),
                applied: applied.iter().any(|name| name == migration.name()),
                known: true,
            })
            .collect();
        let is_known = |name: &String| states.iter().any(|state| state.name == *name);
        let newer: Vec<String> = applied.into_iter().filter(|name| !is_known(name)).collect();
        states.extend(newer.into_iter().map(|name| MigrationState {
            name,
            applied: true,
            known: false,
        }));
        Ok(states)
    }

    /// Refuses a database that a newer program has migrated.
    pub(crate) async fn refuse_newer(&self) -> Result<(), StoreError> {
        MigrationState::refuse_newer(&self.migrations().await?)
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, DbBackend, Statement};

    use super::*;

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_listed_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/wxgate.db", folder.path().display());
        let store = Store::connect(&url).await.unwrap();
        store.migrate_up().await.unwrap();
        let newer =
            "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20991231_future', 0)";
        store.write().execute_unprepared(newer).await.unwrap();
        let states = store.migrations().await.unwrap();
        let (last, own) = states.split_last().unwrap();
        assert_eq!(
            (last.name.as_str(), last.known),
            ("m20991231_future", false)
        );
        assert!(own.iter().all(|state| state.known && state.applied));
        for refused in [store.migrate_up().await, store.migrate_down().await] {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("newer wxgate (m20991231_future)"), "{told}");
        }
        assert_eq!(store.migrations().await.unwrap(), states);
    }

    #[tokio::test]
    async fn a_reverted_schema_leaves_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/wxgate.db", folder.path().display());
        let store = Store::connect(&url).await.unwrap();
        store.migrate_up().await.unwrap();
        for _ in Migrator::migrations() {
            store.migrate_down().await.unwrap();
        }
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table'";
        let tables = Statement::from_string(DbBackend::Sqlite, tables);
        let tables = store.write().query_all_raw(tables).await.unwrap();
        let names = tables
            .iter()
            .map(|row| row.try_get("", "name").unwrap())
            .collect::<Vec<String>>();
        assert_eq!(names, ["seaql_migrations"]);
    }
}
