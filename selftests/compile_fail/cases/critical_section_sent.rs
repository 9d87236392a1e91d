// SPDX-License-Identifier: GPL-2.0
//! The end of a critical section in another thread.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    exclusive::DevicePages,
    notifier::CriticalSection, //
};

fn send<T: Send>(_what: T) {}

pub fn case(section: CriticalSection<'_, DevicePages>) {
    #[cfg(wrong)]
    send(section);
    //~[wrong]^ ERROR: E0277: `*mut ()` cannot be sent between threads safely
    #[cfg(twin)]
    send(section.notifier().range().start());
}
