// SPDX-License-Identifier: GPL-2.0

//! The attribute of a KUnit suite, for tests in user space.

use proc_macro::TokenStream;

/// Leaves the module as it is: its `#[test]` functions are tests of cargo as well.
#[proc_macro_attribute]
pub fn kunit_tests(_name: TokenStream, module: TokenStream) -> TokenStream {
    module
}
