// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_leafmap`: reserved memory, mapped in leaves of PTE, PMD or PUD size, whichever is
//! asked for. For tests only; the interface is `mmops_leafmap.h`.
//!
//! Faults are served as `vfio-pci` serves those on a BAR (`vfio_pci_mmap_huge_fault()`), with the
//! kernel's own `vmf_insert_pfn_pud()`, `vmf_insert_pfn_pmd()` and `vmf_insert_pfn()`: the entries
//! are special, and mmops finds no `struct page` behind them. The kernel's crate has no abstraction
//! of a fault handler, so the VMA operations are filled in by hand.

mod fault;

use core::pin::Pin;
use fault::Serving;
use kernel::{
    bindings,
    fs::File,
    ioctl::{
        _IOC_SIZE,
        _IOR,
        _IOW, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::Mutex,
    uaccess::UserSlice, //
};
use zerocopy::FromZeros;
use zerocopy_derive::Immutable;

module! {
    type: Leafmap,
    name: "mmops_leafmap",
    authors: ["The mmops authors"],
    description: "Reserved memory in leaves of any size, for tests of mmops",
    license: "GPL",
    params: {
        start: u64 {
            default: 0,
            description: "Physical address of the memory, a multiple of 1 GiB",
        },
        size: u64 {
            default: 0,
            description: "Bytes of memory, a multiple of 1 GiB",
        },
    },
}

const IOC_SERVE: u32 = _IOW::<Serve>(0xBF, 0x00);
const IOC_INFO: u32 = _IOR::<Info>(0xBF, 0x01);
const IOC_UNMAP: u32 = _IOW::<Unmap>(0xBF, 0x02);

const SHRINK: u32 = 1 << 0;
const MAY_SPLIT: u32 = 1 << 1;
const MIXED: u32 = 1 << 2;
const LEAVE_ALONE: u32 = 1 << 3;

/// `struct mmops_leafmap_serve`
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Serve {
    order: u32,
    flags: u32,
    skew: u64,
}

/// `struct mmops_leafmap_info`
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    size: u64,
    pte: u64,
    pmd: u64,
    pud: u64,
    writes: u64,
    left: u64,
}

/// `struct mmops_leafmap_unmap`
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Unmap {
    offset: u64,
    len: u64,
}

/// The memory that is mapped: no part of the kernel's RAM, whole multiples of 1 GiB.
#[derive(Clone, Copy)]
struct Memory {
    start: u64,
    size: u64,
}

impl Memory {
    /// What the parameters name; they are fixed while the module is loaded.
    fn from_parameters() -> Result<Self> {
        let start = module_parameters::start.value();
        let size = module_parameters::size.value();
        let gib_mask = (1 << bindings::PUD_SHIFT) - 1;

        if size == 0 || (start | size) & gib_mask != 0 || start.checked_add(size).is_none() {
            pr_err!("start= and size= must name memory in whole GiB\n");
            return Err(EINVAL);
        }
        // SAFETY: The function only looks resources up.
        let kind = unsafe {
            bindings::region_intersects(
                start,
                size as usize,
                bindings::IORESOURCE_SYSTEM_RAM as usize,
                bindings::IORES_DESC_NONE as usize,
            )
        };
        if kind != bindings::REGION_DISJOINT as i32 {
            pr_err!("the kernel uses this memory: boot with memmap=SIZE$START\n");
            return Err(EBUSY);
        }
        Ok(Self { start, size })
    }
}

#[pin_data]
struct Leafmap {
    _memory: Memory,
    #[pin]
    _misc: MiscDeviceRegistration<Device>,
}

impl kernel::InPlaceModule for Leafmap {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _memory: Memory::from_parameters()?,
            _misc <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"mmops_leafmap" }),
        })
    }
}

/// An open `/dev/mmops_leafmap`.
#[pin_data]
struct Device {
    memory: Memory,
    /// Taken inside the mmap lock, by fault handlers.
    #[pin]
    serving: Mutex<Serving>,
}

#[vtable]
impl MiscDevice for Device {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let memory = Memory::from_parameters()?;
        let serving = Serving::new(memory.size, &Serve::new_zeroed())?;

        KBox::try_pin_init(
            try_pin_init!(Self {
                memory,
                serving <- new_mutex!(serving),
            }),
            GFP_KERNEL,
        )
    }

    fn mmap(me: Pin<&Self>, _file: &File, vma: &VmaNew) -> Result {
        me.map(vma)
    }

    fn ioctl(me: Pin<&Self>, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let user = || UserSlice::new(UserPtr::from_addr(arg), _IOC_SIZE(cmd));

        match cmd {
            IOC_SERVE => {
                let mut arg = Serve::new_zeroed();
                user().reader().read_slice(arg.as_mut_bytes())?;
                me.serve(&arg)?;
            }
            IOC_INFO => user().writer().write_slice(me.info().as_bytes())?,
            IOC_UNMAP => {
                let mut arg = Unmap::new_zeroed();
                user().reader().read_slice(arg.as_mut_bytes())?;
                me.unmap(file, &arg)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

impl Device {
    fn serve(&self, arg: &Serve) -> Result {
        if arg.flags & !(SHRINK | MAY_SPLIT | MIXED | LEAVE_ALONE) != 0 {
            return Err(EINVAL);
        }

        let serving = Serving::new(self.memory.size, arg)?;
        let old = self.serving.lock().replace(serving);

        // Freed after the lock was.
        drop(old);
        Ok(())
    }

    fn info(&self) -> Info {
        let serving = self.serving.lock();

        Info {
            size: self.memory.size,
            pte: serving.ptes,
            pmd: serving.pmds,
            pud: serving.puds,
            writes: serving.writes,
            left: serving.left,
        }
    }

    fn unmap(&self, file: &File, arg: &Unmap) -> Result {
        let end = arg.offset.checked_add(arg.len).ok_or(EINVAL)?;

        if (arg.offset | arg.len) % PAGE_SIZE as u64 != 0 || end > self.memory.size {
            return Err(EINVAL);
        }
        // SAFETY: The file is open, so it has its address space; no lock is held.
        unsafe {
            bindings::unmap_mapping_range(
                (*file.as_ptr()).f_mapping,
                arg.offset as i64,
                arg.len as i64,
                1,
            )
        };
        Ok(())
    }
}
