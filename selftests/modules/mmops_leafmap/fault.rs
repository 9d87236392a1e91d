// SPDX-License-Identifier: GPL-2.0

//! The fault handlers, and which leaf a fault is served with.

use super::{
    Device,
    Serve,
    LEAVE_ALONE,
    MAY_SPLIT,
    MIXED,
    SHRINK, //
};
use kernel::{
    bindings::{
        self,
        vm_fault,
        vm_fault_t, //
    },
    mm::virt::{
        flags,
        VmaNew,
        VmaRef, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

const PMD_ORDER: u32 = bindings::PMD_ORDER;
const PUD_ORDER: u32 = PMD_ORDER * 2;

/// `_PAGE_PSE` of x86: the entry of a PMD or PUD is a leaf.
const LEAF: usize = 1 << 7;
/// `_PAGE_RW` of x86.
const WRITABLE: usize = 1 << 1;

const FALLBACK: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_FALLBACK;
const NOPAGE: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_NOPAGE;
const SIGBUS: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_SIGBUS;

/// Faults that leave a leaf alone; then something is wrong, and it is better to say so.
const PATIENCE: u64 = 1000;

static VM_OPS: Operations = Operations(bindings::vm_operations_struct {
    may_split: Some(may_split),
    fault: Some(fault),
    huge_fault: Some(huge_fault),
    ..pin_init::zeroed()
});

struct Operations(bindings::vm_operations_struct);

// SAFETY: The table is never written to.
unsafe impl Sync for Operations {}

/// How faults on the mappings of one open file are served.
pub(crate) struct Serving {
    /// The largest leaf.
    order: u32,
    /// The largest leaf that there can be from earlier.
    largest: u32,
    /// A VMA may end within a PUD leaf.
    may_split: bool,
    /// New mappings are `VM_MIXEDMAP`.
    mixed: bool,
    /// A write to a leaf that is read-only leaves it alone.
    leave_alone: bool,
    /// Page offset at which the memory begins.
    skew: usize,
    /// The leaves of PMD and PUD size that were served, where each is served once only.
    once: Option<(KVVec<bool>, KVVec<bool>)>,
    /// Faults that were served, by the size of the leaf.
    pub(crate) ptes: u64,
    pub(crate) pmds: u64,
    pub(crate) puds: u64,
    /// Of `pmds` and `puds`, those of a write to a leaf that was there and read-only.
    pub(crate) writes: u64,
    /// Writes to a leaf that was read-only and left alone.
    pub(crate) left: u64,
}

impl Serving {
    pub(crate) fn new(size: u64, arg: &Serve) -> Result<Self> {
        let order = arg.order;

        if ![0, PMD_ORDER, PUD_ORDER].contains(&order) || arg.skew >> PUD_ORDER != 0 {
            return Err(EINVAL);
        }

        let none_of = |shift: u32| KVVec::from_elem(false, (size >> shift) as usize, GFP_KERNEL);
        let once = if arg.flags & SHRINK != 0 {
            Some((none_of(bindings::PMD_SHIFT)?, none_of(bindings::PUD_SHIFT)?))
        } else {
            None
        };

        Ok(Self {
            order,
            largest: order,
            may_split: arg.flags & MAY_SPLIT != 0,
            mixed: arg.flags & MIXED != 0,
            leave_alone: arg.flags & LEAVE_ALONE != 0,
            skew: arg.skew as usize,
            once,
            ptes: 0,
            pmds: 0,
            puds: 0,
            writes: 0,
            left: 0,
        })
    }

    /// Serves like `new` from now on, and returns what it did before.
    pub(crate) fn replace(&mut self, mut new: Self) -> Self {
        new.largest = new.order.max(self.largest);
        core::mem::replace(self, new)
    }

    /// Whether to put a new leaf of `order` at page `page` of the memory.
    fn may_insert(&mut self, order: u32, page: usize) -> bool {
        if order > self.order {
            return false;
        }

        let Some((pmds, puds)) = &mut self.once else {
            return true;
        };
        let served = if order == PUD_ORDER { puds } else { pmds };

        !core::mem::replace(&mut served[page >> order], true)
    }
}

impl Device {
    /// Makes `vma` a mapping of this open file, without entries yet.
    pub(crate) fn map(&self, vma: &VmaNew) -> Result {
        let raw = vma.as_ptr();
        let pages = (vma.end() - vma.start()) >> PAGE_SHIFT;
        // SAFETY: The VMA is being set up by the caller.
        let first = unsafe { (*raw).vm_pgoff };

        // A private mapping would copy, which takes a `struct page`.
        if vma.flags() & flags::SHARED == 0 {
            return Err(EINVAL);
        }
        let skew = self.serving.lock().skew;
        let first = first.checked_sub(skew).ok_or(EINVAL)?;
        let end = first.checked_add(pages).ok_or(EINVAL)?;
        if end > (self.memory.size as usize) >> PAGE_SHIFT {
            return Err(EINVAL);
        }

        vma.set_dontexpand();
        vma.set_dontdump();
        if self.serving.lock().mixed {
            vma.set_mixedmap();
        } else {
            vma.set_io();
            // SAFETY: The VMA is being set up by the caller and is not shared yet; it is not
            // private.
            unsafe { (*raw).__bindgen_anon_2.vm_flags |= flags::PFNMAP };
        }
        // SAFETY: As above. The VMA holds a reference to the file, which owns `self`, and the file
        // one to this module.
        unsafe {
            (*raw).vm_private_data = core::ptr::from_ref(self).cast_mut().cast();
            (*raw).vm_ops = &VM_OPS.0;
        }
        Ok(())
    }

    /// Serves a fault with a leaf of `order`, or tells the kernel to ask for a smaller one.
    ///
    /// # Safety
    ///
    /// `vmf` must be a fault, as the kernel passes it to its handler, on a VMA that [`Self::map`]
    /// set up; the entry pointer of `order` must be set unless that is 0.
    unsafe fn insert(&self, vmf: *mut vm_fault, order: u32) -> vm_fault_t {
        // SAFETY: By the requirements of the function.
        let (info, write) = unsafe {
            (
                &(*vmf).__bindgen_anon_1,
                (*vmf).flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0,
            )
        };
        // SAFETY: The VMA is locked during its fault.
        let vma = unsafe { VmaRef::from_raw(info.vma) };
        let addr = info.address & !((PAGE_SIZE << order) - 1);
        let mut serving = self.serving.lock();
        // The skew was another one, perhaps, when the file was mapped.
        let Some(at) = info.pgoff.checked_sub(serving.skew) else {
            return SIGBUS;
        };
        let first = (self.memory.start as usize) >> PAGE_SHIFT;

        if at >= (self.memory.size as usize) >> PAGE_SHIFT {
            return SIGBUS;
        }
        if order == 0 {
            let pfn = first + at;

            serving.ptes += 1;
            // SAFETY: By the requirements of the function; the VMA is a PFN map, and not private,
            // or a mixed map, and the page frame has no page.
            return unsafe { bindings::vmf_insert_pfn(info.vma, info.address, pfn) };
        }
        if addr < vma.start() || vma.end() - addr < PAGE_SIZE << order {
            return FALLBACK;
        }
        let page = at & !((1 << order) - 1);
        if at - page != (info.address - addr) >> PAGE_SHIFT {
            return FALLBACK;
        }
        let pfn = first + page;

        // SAFETY: By the requirements of the function. Others may change the entry at any time.
        let entry = unsafe {
            match order {
                PMD_ORDER => (&raw const (*(*vmf).pmd).pmd).read_volatile(),
                PUD_ORDER => (&raw const (*(*vmf).pud).pud).read_volatile(),
                _ => return FALLBACK,
            }
        };

        if entry == 0 {
            if !serving.may_insert(order, page) {
                return FALLBACK;
            }
        } else if write && entry & LEAF != 0 && entry & WRITABLE == 0 && serving.leave_alone {
            serving.left += 1;
            return if serving.left > PATIENCE {
                SIGBUS
            } else {
                NOPAGE
            };
        } else if write && entry & LEAF != 0 && entry & WRITABLE == 0 {
            // The leaf is made anew. To insert it once more would be enough, but by now a table may
            // be in its place, and vmf_insert_pfn_pud() warns of a write to one.
            serving.writes += 1;
            // SAFETY: The VMA is locked, and the leaf lies in it.
            unsafe { bindings::zap_vma_range(info.vma, addr, PAGE_SIZE << order) };
        } else {
            return NOPAGE;
        }
        // SAFETY: As for vmf_insert_pfn(); the leaf is aligned and inside the VMA. Where something
        // else is by now, nothing is done.
        unsafe {
            if order == PMD_ORDER {
                serving.pmds += 1;
                bindings::vmf_insert_pfn_pmd(vmf, pfn, false)
            } else {
                serving.puds += 1;
                bindings::vmf_insert_pfn_pud(vmf, pfn, false)
            }
        }
    }
}

/// Lets no VMA end within a PUD leaf, as `dev_dax_may_split()`, unless that was asked for. The
/// kernel would take the leaf for a table: `mm_find_pmd()`, called for a boundary within 2 MiB,
/// looks for an entry of a PMD in the mapped memory.
///
/// # Safety
///
/// `vma` must be a VMA that [`Device::map`] set up.
unsafe extern "C" fn may_split(vma: *mut bindings::vm_area_struct, addr: usize) -> i32 {
    // SAFETY: As in `huge_fault`.
    let device = unsafe { &*(*vma).vm_private_data.cast::<Device>() };

    let serving = device.serving.lock();

    if serving.largest < PUD_ORDER
        || serving.may_split
        || addr & ((PAGE_SIZE << PUD_ORDER) - 1) == 0
    {
        0
    } else {
        EINVAL.to_errno()
    }
}

/// # Safety
///
/// As for [`Device::insert`].
unsafe extern "C" fn huge_fault(vmf: *mut vm_fault, order: u32) -> vm_fault_t {
    // SAFETY: The private data of a VMA that `Device::map` set up is the device, which lives as
    // long as the VMA; the rest by the requirements of the function.
    unsafe {
        let device = (*(*vmf).__bindgen_anon_1.vma).vm_private_data;

        (*device.cast::<Device>()).insert(vmf, order)
    }
}

/// # Safety
///
/// As for [`Device::insert`].
unsafe extern "C" fn fault(vmf: *mut vm_fault) -> vm_fault_t {
    // SAFETY: By the requirements of the function.
    unsafe { huge_fault(vmf, 0) }
}
