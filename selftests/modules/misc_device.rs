// SPDX-License-Identifier: GPL-2.0

//! A module with one device, whose ioctls keep nothing between them. Not a module of its own: those
//! beside it name this file by a path.

use kernel::{
    prelude::*,
    uaccess::UserSlice, //
};
use zerocopy::Immutable;

/// `misc_device!(Module, c"name", { NUMBER => function, })`: the type that `module!` asks for, and
/// behind `/dev/name` a table of ioctls. A function is one of the argument, as `fn(&mut Arg) ->
/// Result`, which is copied in before and out after it; not out where it fails.
macro_rules! misc_device {
    ($module:ident, $name:literal, { $($number:pat => $function:path,)* }) => {
        #[pin_data]
        struct $module {
            #[pin]
            _misc: kernel::miscdevice::MiscDeviceRegistration<Device>,
        }

        impl kernel::InPlaceModule for $module {
            fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
                try_pin_init!(Self {
                    _misc <- kernel::miscdevice::MiscDeviceRegistration::register(
                        kernel::miscdevice::MiscDeviceOptions { name: $name },
                    ),
                })
            }
        }

        struct Device;

        #[vtable]
        impl kernel::miscdevice::MiscDevice for Device {
            type Ptr = core::pin::Pin<KBox<Self>>;

            fn open(
                _file: &kernel::fs::File,
                _misc: &kernel::miscdevice::MiscDeviceRegistration<Self>,
            ) -> Result<Self::Ptr> {
                Ok(KBox::pin(Self, GFP_KERNEL)?)
            }

            fn ioctl(
                _me: core::pin::Pin<&Self>,
                _file: &kernel::fs::File,
                cmd: u32,
                arg: usize,
            ) -> Result<isize> {
                match cmd {
                    $($number => $crate::misc_device::with_arg(cmd, arg, $function),)*
                    _ => Err(ENOTTY),
                }
            }
        }
    };
}

/// Reads the argument of the ioctl `cmd` at the address `arg`, calls `f`, and writes it back.
pub(crate) fn with_arg<A: FromBytes + IntoBytes + Immutable>(
    cmd: u32,
    arg: usize,
    f: impl FnOnce(&mut A) -> Result,
) -> Result<isize> {
    let user = || UserSlice::new(UserPtr::from_addr(arg), kernel::ioctl::_IOC_SIZE(cmd));
    let mut arg = A::new_zeroed();

    user().reader().read_slice(arg.as_mut_bytes())?;
    f(&mut arg)?;
    user().writer().write_slice(arg.as_bytes())?;
    Ok(0)
}
