// SPDX-License-Identifier: GPL-2.0

//! A device that mirrors the address space of the process that opens it: it reads and writes the
//! process's memory through a page table of its own, faults in what it lacks, and drops what the
//! kernel takes away.
//!
//! The device is simulated: its page table is that of [`mmops::hmm::Mirror`], its memory accesses
//! are copies. The interface is that of the kernel's own test module, `lib/test_hmm_uapi.h`, so
//! that the kernel's own `tools/testing/selftests/mm/hmm-tests.c` runs against it. Like a GPU that
//! is part of the processor, it has no memory of its own: to migrate pages to it moves nothing.
//!
//! Documentation/mirror.rst builds a driver like this one step by step.

mod copy;
mod uapi;

use core::pin::Pin;
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::UserSlice, //
};
use mmops::{
    hmm::{
        self,
        Access,
        HmmPfn,
        Mirror, //
    },
    mm,
    new_mirror,
    notifier::Invalidated,
    range::AddrRange,
    signal, //
};
use uapi::Command;

module! {
    type: MirrorModule,
    name: "mmops_mirror",
    authors: ["The mmops authors"],
    description: "A simulated device that mirrors an address space",
    license: "GPL",
    imports_ns: ["MMOPS"],
}

/// Two devices, as the tests open two.
#[pin_data]
struct MirrorModule {
    #[pin]
    _first: MiscDeviceRegistration<OpenDevice>,
    #[pin]
    _second: MiscDeviceRegistration<OpenDevice>,
}

impl kernel::InPlaceModule for MirrorModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _first <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"hmm_dmirror0",
            }),
            _second <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"hmm_dmirror1",
            }),
        })
    }
}

/// What is behind the mirror. A real device would flush its TLB in `invalidate`, and wait for what
/// it has under way; this one does nothing outside the lock of the mirror.
struct Simulated;

impl hmm::Device for Simulated {
    fn invalidate(&mut self, _what: &Invalidated) {}
}

/// An open device: a mirror of the address space of whoever opened it.
///
/// The file may outlive the address space, and a child that inherits the file still accesses the
/// parent's memory through it.
struct OpenDevice {
    mirror: Pin<KBox<Mirror<Simulated>>>,
}

#[vtable]
impl MiscDevice for OpenDevice {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let mm = mm::current()?;
        let all = AddrRange::new(0, usize::MAX & PAGE_MASK)?;
        let mirror = KBox::try_pin_init(new_mirror!(&mm, all, Simulated, "mirror")?, GFP_KERNEL)?;

        Ok(KBox::pin(Self { mirror }, GFP_KERNEL)?)
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let user = || UserSlice::new(UserPtr::from_addr(arg), size_of::<Command>());
        let mut command = Command::default();

        user().reader().read_slice(command.as_mut_bytes())?;
        command.cpages = 0;
        command.faults = 0;

        let range = command.range()?;

        match cmd {
            uapi::READ => me.read(&range, &mut command, Mirror::fault)?,
            uapi::READ_UNLOCKED => me.read(&range, &mut command, Mirror::fault_unlocked)?,
            uapi::WRITE => me.write(&range, &mut command)?,
            uapi::EXCLUSIVE => me.exclusive(&range, &mut command)?,
            uapi::SNAPSHOT => me.snapshot(&range, &mut command)?,
            uapi::CHECK_EXCLUSIVE => me.check_exclusive(&range)?,
            uapi::MIGRATE_TO_DEV => me.migrate_to_device(&range, &mut command)?,
            // What the device does not have; the errno is that of the test module.
            _ => return Err(EINVAL),
        }
        user().writer().write_slice(command.as_bytes())?;
        Ok(0)
    }
}

impl OpenDevice {
    /// The device reads `range`, and what it read is copied to the buffer of the command.
    fn read(
        &self,
        range: &AddrRange,
        command: &mut Command,
        fault: impl Fn(&Mirror<Simulated>, &AddrRange, Access) -> Result,
    ) -> Result {
        let mut bounce = copy::Bounce::new(range)?;

        for part in copy::parts(range) {
            let mut addr = part.start();

            while addr < part.end() {
                // The lock is released at the end of this statement: a fault takes it again.
                let result = bounce.device_reads(&self.mirror.lock(), &part, &mut addr);

                match result {
                    Err(error) if error == ENOENT => {
                        fault(
                            &self.mirror,
                            &AddrRange::new(addr, range.end())?,
                            Access::Read,
                        )
                        .map_err(errno)?;
                        command.faults += 1;
                    }
                    result => result?,
                }
            }
            bounce.copy_to_user(command.buffer(range, part.start()), &part)?;
            command.cpages += part.nr_pages() as u64;
        }
        Ok(())
    }

    /// The device writes `range`, with what is in the buffer of the command.
    fn write(&self, range: &AddrRange, command: &mut Command) -> Result {
        let mut bounce = copy::Bounce::new(range)?;

        for part in copy::parts(range) {
            let mut addr = part.start();

            bounce.copy_from_user(command.buffer(range, part.start()), &part)?;
            while addr < part.end() {
                let result = bounce.device_writes(&mut self.mirror.lock(), &part, &mut addr);

                match result {
                    Err(error) if error == ENOENT => {
                        let rest = AddrRange::new(addr, range.end())?;

                        self.mirror.fault(&rest, Access::Write).map_err(errno)?;
                        command.faults += 1;
                    }
                    result => result?,
                }
            }
            command.cpages += part.nr_pages() as u64;
        }
        Ok(())
    }

    /// The device gets `range` for itself, and reads it; what it read is copied to the buffer of
    /// the command. A page that a CPU takes back in between is made exclusive again.
    fn exclusive(&self, range: &AddrRange, command: &mut Command) -> Result {
        self.mirror.make_exclusive(range).map_err(errno)?;
        self.read(range, command, |mirror, rest, _| {
            mirror.make_exclusive(rest)
        })
    }

    /// Tells for each page of `range` what is mapped, in a byte of the buffer of the command.
    fn snapshot(&self, range: &AddrRange, command: &mut Command) -> Result {
        let mut bytes = KVec::new();

        self.mirror
            .snapshot(range, |addr, pfns| {
                let first = (addr - range.start()) / PAGE_SIZE;

                bytes.clear();
                for found in pfns {
                    bytes.push(protection(*found), GFP_KERNEL)?;
                }
                UserSlice::new(
                    UserPtr::from_addr((command.ptr as usize).wrapping_add(first)),
                    bytes.len(),
                )
                .writer()
                .write_slice(&bytes)?;
                command.cpages += pfns.len() as u64;
                Ok(())
            })
            .map_err(errno)
    }

    /// `EPERM` if the device has exclusive access to a page of `range`.
    fn check_exclusive(&self, range: &AddrRange) -> Result {
        for part in copy::parts(range) {
            signal::interruption()?;

            let pages = self.mirror.lock();

            for addr in (part.start()..part.end()).step_by(PAGE_SIZE) {
                if pages.access(addr) == Some(Access::Exclusive) {
                    return Err(EPERM);
                }
            }
        }
        Ok(())
    }

    /// Brings `range` to where the device can write it. Its memory is that of the system, so the
    /// pages stay where they are, and have not to be brought back.
    fn migrate_to_device(&self, range: &AddrRange, command: &mut Command) -> Result {
        self.mirror.fault(range, Access::Write).map_err(errno)?;
        command.cpages = range.nr_pages() as u64;
        Ok(())
    }
}

/// The test module's errno for an address space that has ended.
fn errno(error: Error) -> Error {
    if error == ESRCH {
        EFAULT
    } else {
        error
    }
}

/// `HMM_DMIRROR_PROT_*` of what was found.
fn protection(found: HmmPfn) -> u8 {
    if found.is_error() {
        return uapi::PROT_ERROR;
    }
    if !found.is_valid() {
        return uapi::PROT_NONE;
    }

    let access = if found.is_write() {
        uapi::PROT_WRITE
    } else {
        uapi::PROT_READ
    };
    let zero = if found.is_zero_page() {
        uapi::PROT_ZERO
    } else {
        0
    };
    let size = match found.map_order() {
        9 => uapi::PROT_PMD,
        18 => uapi::PROT_PUD,
        _ => 0,
    };

    access | zero | size
}
