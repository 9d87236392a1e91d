// SPDX-License-Identifier: GPL-2.0

//! An LMDB database in one file.

use std::path::Path;

use anyhow::{Context, Result};
use lmdb::{
    Cursor, DatabaseFlags, Environment, EnvironmentFlags, RwTransaction, Transaction, WriteFlags,
};

use crate::model::Content;

/// How a database is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Mode {
    /// By stores to a writable shared mapping of the file (MDB_WRITEMAP)
    WriteMap,
    /// By write(2); the mapping is for reading
    Write,
}

/// A database that is open.
pub struct Database {
    environment: Environment,
    database: lmdb::Database,
}

impl Database {
    /// Creates a database.
    ///
    /// Nothing is synchronised on commit: a crash of the machine may lose it, and a commit costs
    /// no I/O. The kernel still writes the file back when it likes.
    pub fn create(path: &Path, map_size: usize, mode: Mode) -> Result<Self> {
        let context = || format!("cannot create the database {}", path.display());
        let how = match mode {
            Mode::WriteMap => EnvironmentFlags::WRITE_MAP,
            Mode::Write => EnvironmentFlags::empty(),
        };
        let environment = Environment::new()
            .set_flags(how | EnvironmentFlags::NO_SUB_DIR | EnvironmentFlags::NO_SYNC)
            .set_map_size(map_size)
            .open_with_permissions(path, 0o644)
            .with_context(context)?;
        let database = environment
            .create_db(None, DatabaseFlags::empty())
            .with_context(context)?;
        Ok(Self {
            environment,
            database,
        })
    }

    /// Opens a database that is there, for reading.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("cannot open the database {}", path.display());
        let environment = Environment::new()
            .set_flags(EnvironmentFlags::READ_ONLY | EnvironmentFlags::NO_SUB_DIR)
            .open(path)
            .with_context(context)?;
        let database = environment.open_db(None).with_context(context)?;
        Ok(Self {
            environment,
            database,
        })
    }

    /// Makes changes in one transaction.
    pub fn change(&self, make: impl FnOnce(&mut Changes) -> lmdb::Result<()>) -> Result<()> {
        let transaction = self
            .environment
            .begin_rw_txn()
            .context("cannot begin a transaction")?;
        let mut changes = Changes {
            transaction,
            database: self.database,
        };
        make(&mut changes).context("cannot change the database")?;
        changes
            .transaction
            .commit()
            .context("cannot commit a transaction")
    }

    /// Reads all entries.
    pub fn content(&self) -> Result<Content> {
        let transaction = self
            .environment
            .begin_ro_txn()
            .context("cannot read the database")?;
        let mut cursor = transaction.open_ro_cursor(self.database)?;
        let mut content = Content::default();
        for entry in cursor.iter() {
            let (key, value) = entry.context("cannot read an entry")?;
            content.add(key, value);
        }
        Ok(content)
    }
}

/// A transaction under way.
pub struct Changes<'a> {
    transaction: RwTransaction<'a>,
    database: lmdb::Database,
}

impl Changes<'_> {
    /// Puts an entry, whether or not there is one of this key.
    pub fn put(&mut self, key: &str, value: &[u8]) -> lmdb::Result<()> {
        self.transaction
            .put(self.database, &key, &value, WriteFlags::empty())
    }

    /// Deletes the entry of a key, which is there.
    pub fn delete(&mut self, key: &str) -> lmdb::Result<()> {
        self.transaction.del(self.database, &key, None)
    }
}
