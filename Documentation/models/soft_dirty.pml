/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A clear of soft-dirty, a harvest, writeback and a CPU that stores: rust/soft_dirty.rs,
 * rust/dirty.rs.
 *
 * PROPERTY a page that is stored to after a clear reads as soft-dirty, one that is
 *	stored to after a harvest as dirty; every store reaches the disk
 *
 * One page of a file, on a file system that marks the folio when the entry becomes
 * writable. Beside the four, a second clear and migration, or a device that pins the
 * page by GUP-fast. What a device stores is noted by no dirty bit: a harvest looks for
 * pins, which is left out here.
 *
 * FULL -DALL
 *
 * MUTANT skip_pending		soft_dirty_race control_no_pending
 *	a scope raises tlb_flush_pending
 * MUTANT skip_nested_check	-
 *	and asks whether another one is open
 * MUTANT skip_flush		soft_dirty_race control_no_flush
 *	the flush
 * MUTANT keep_migration_writable	soft_dirty_race control_migration_stays_writable
 *	a writable migration entry becomes a readable one
 * MUTANT skip_pin_check	soft_dirty_pins control_no_pin_check
 *	pins are asked for after the entry was changed
 * MUTANT pin_check_before	-
 *	and not before
 * MUTANT transfer_before_flush	writeback control_transfer_before_flush
 *	a harvest marks the folio after the flush
 * MUTANT flush_late		harvest_race control_flush_late
 *	without a mark, it flushes before the page-table lock is released
 * MUTANT no_mark		-
 *	the dirty bit that was taken is given to the folio
 */

#define STORES	3	/* in all */

/* The entry: present, or a migration entry, with the bits that both have. */
bool present = true, writable, dirty, soft = true;
bool locked;
bool tlb;		/* a translation that is writable and dirty */
byte pending;

bool folio_dirty, folio_locked;
bool may_have_pins, pinned;

/* The number of the last store, in memory and on the disk. */
byte memory, disk;

/* What two clears and a harvest may rely on, see two_walks.pml. */
bool passed[3], told[3];
#define HARVEST	2

byte harvesting;

inline lock()
{
	atomic { !locked -> locked = true }
}

inline flush()
{
	atomic {
		printf("flush by process %d\n", _pid);
		tlb = false
	}
}

/* The entry gets its soft-dirty bit, or its dirty bit. */
inline set_soft()
{
	soft = true;
	passed[0] = false;
	passed[1] = false;
	told[0] = false;
	told[1] = false
}

inline set_dirty()
{
	dirty = true;
	passed[HARVEST] = false;
	told[HARVEST] = false
}

inline raise()
{
#ifndef skip_pending
	pending++
#else
	skip
#endif
}

inline lower()
{
#ifndef skip_pending
	pending--
#else
	skip
#endif
}

/* FlushScope::is_nested() */
inline ask_nested()
{
#ifndef skip_nested_check
	nested = pending > 1
#else
	nested = false
#endif
}

/* FlushScope::flush_locked() */
inline end_flush()
{
	if
	:: changed || nested ->
#ifndef skip_flush
		flush()
#else
		skip
#endif
	:: else
	fi
}

proctype clear(byte w)
{
	bool changed, nested, pins;

	raise();
	lock();
#ifdef pin_check_before
	pins = may_have_pins && pinned;
#endif
soft_dirty_now:
	/* PteTable::clear_soft_dirty(): one exchange */
	atomic {
		printf("clear %d: entry is cleared, writable %d\n", w, writable);
		changed = present && writable;
		soft = false;
		if
#ifdef keep_migration_writable
		:: !present
#endif
		:: else -> writable = false
		fi;
		passed[w] = true
	};
#if !defined(skip_pin_check) && !defined(pin_check_before)
	pins = may_have_pins;
	pins = pins && pinned;
#endif
	atomic {
		if
		:: pins && present ->
			printf("clear %d: page is pinned, and kept\n", w);
			set_soft();
			writable = writable || changed
		:: else
		fi;
		locked = false
	};
before_flush:
	ask_nested();
	end_flush();
	lower();
	atomic {
		printf("clear %d: returns\n", w);
		told[w] = passed[w]
	}
}

/* clean_record; with_mark: what Transfer::Skip leaves to the file system. */
proctype harvest(bool with_mark)
{
	bool changed, nested;

	raise();
	lock();
	/* clean_record_table() */
	atomic {
		changed = present && dirty;
		if
		:: present ->
			printf("harvest: entry is made clean, dirty %d\n", dirty);
			dirty = false;
			passed[HARVEST] = true
		:: else
		fi
	};
#ifdef transfer_before_flush
	folio_dirty = folio_dirty || (changed && with_mark);
#endif
#ifndef flush_late
	if
	:: !with_mark ->
		ask_nested();
		end_flush();
		changed = false
	:: else
	fi;
#endif
	locked = false;
	ask_nested();
	end_flush();
	lower();
	atomic {
		printf("harvest: returns\n");
		told[HARVEST] = passed[HARVEST]
	};
	/* DirtyQueue: under the folio lock */
#if !defined(transfer_before_flush) && !defined(no_mark)
	if
	:: changed && with_mark ->
		atomic { !folio_locked -> folio_locked = true };
		printf("harvest: folio is marked dirty\n");
		folio_dirty = true;
		folio_locked = false
	:: else
	fi;
#endif
	harvesting--
}

/* folio_clear_dirty_for_io(), page_vma_mkclean_one(), and the write itself. */
proctype writeback()
{
	bool flushes;

end:
	do
	:: atomic { (folio_dirty || dirty) && !folio_locked -> folio_locked = true };
		lock();
		atomic {
			flushes = present && (dirty || writable);
			if
			:: flushes ->
				printf("writeback: entry is made clean and read-only\n");
				folio_dirty = folio_dirty || dirty;
				dirty = false;
				writable = false
			:: else
			fi
		};
		if
		:: flushes -> flush()
		:: else
		fi;
		locked = false;
		atomic {
			printf("writeback: writes store %d\n", memory);
			folio_dirty = false;
			disk = memory;
			folio_locked = false;
			flushes = false
		}
	od
}

proctype migrate()
{
end:
	do
	:: atomic { present && !pinned && !folio_locked -> folio_locked = true };
		lock();
		atomic {
			printf("migrate: a migration entry, writable %d\n", writable);
			present = false
		};
		flush();
		locked = false;
		lock();
		atomic {
			printf("migrate: the page is there again, writable %d\n", writable);
			present = true;
			locked = false;
			folio_locked = false
		}
	od
}

/* Somebody pins the page with GUP-fast, and a device stores to it. */
proctype device()
{
	bool seen;

end:
	may_have_pins = true;
	seen = present && writable;
	if
	:: seen ->
		pinned = true;
		if
		:: !(present && writable) ->
			printf("gup: the entry has changed\n");
			pinned = false
		:: else ->
			if
			:: atomic { memory < STORES ->
				printf("device: store %d\n", memory + 1);
				assert(!told[0] && !told[1]);
				memory++ }
			:: memory == STORES
			fi;
			/* unpin_user_pages_dirty_lock() */
			atomic { !folio_locked -> folio_dirty = true; pinned = false }
		fi
	:: else
	fi
}

inline store()
{
	printf("cpu: store %d\n", memory + 1);
	assert(!told[0] && !told[1] && !told[HARVEST]);
	memory++
}

proctype cpu()
{
end:
	do
	:: atomic { memory < STORES && tlb -> store() }
	:: atomic { memory < STORES && !tlb && present && writable ->
			tlb = true;
			set_dirty();
			store() }
	:: atomic { memory < STORES && !tlb && present && !writable && !locked && !folio_locked ->
			printf("cpu: fault\n");
			writable = true;
			set_dirty();
			set_soft();
			folio_dirty = true }
	:: atomic { tlb -> tlb = false }
	od
}

/* All is quiet, and writeback finds nothing to write. */
proctype sync()
{
end:
	atomic {
		!folio_dirty && !dirty && !folio_locked && !locked && !pinned && harvesting == 0 ->
		assert(disk == memory)
	}
}

init {
	atomic {
		run cpu();
		run writeback();
		run clear(0);
		if
		:: run clear(1); run migrate()
		:: harvesting = 1; run harvest(true); run sync()
		:: harvesting = 1; run harvest(false); run sync()
		:: run device(); run sync()
#ifdef ALL
		:: harvesting = 1; run clear(1); run harvest(true); run sync()
		:: harvesting = 1; run clear(1); run harvest(false); run sync()
#endif
		fi
	}
}
