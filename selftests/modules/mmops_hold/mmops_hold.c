// SPDX-License-Identifier: GPL-2.0
/*
 * Holds the lock of a folio for as long as a test likes, as a file system does
 * whose storage does not answer. For tests only.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/uaccess.h>

#include "mmops_hold.h"

/* Orders calls on one open file. */
static DEFINE_MUTEX(hold_mutex);

static int hold_lock(struct file *file, unsigned long addr)
{
	struct folio *folio;
	struct page *page;
	int ret;

	if (file->private_data)
		return -EBUSY;
	ret = get_user_pages_fast(addr & PAGE_MASK, 1, 0, &page);
	if (ret != 1)
		return ret < 0 ? ret : -EFAULT;
	folio = page_folio(page);
	ret = folio_lock_killable(folio);
	if (ret) {
		folio_put(folio);
		return ret;
	}
	file->private_data = folio;
	return 0;
}

static long hold_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	u64 addr;
	int ret;

	if (cmd != MMOPS_HOLD_IOC_LOCK)
		return -ENOTTY;
	if (get_user(addr, (u64 __user *)arg))
		return -EFAULT;
	mutex_lock(&hold_mutex);
	ret = hold_lock(file, addr);
	mutex_unlock(&hold_mutex);
	return ret;
}

/* misc_open() leaves the device here. */
static int hold_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return 0;
}

static int hold_release(struct inode *inode, struct file *file)
{
	struct folio *folio = file->private_data;

	if (folio) {
		folio_unlock(folio);
		folio_put(folio);
	}
	return 0;
}

static const struct file_operations hold_fops = {
	.owner = THIS_MODULE,
	.open = hold_open,
	.release = hold_release,
	.unlocked_ioctl = hold_ioctl,
};

static struct miscdevice hold_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mmops_hold",
	.fops = &hold_fops,
	.mode = 0600,
};

module_misc_device(hold_device);

MODULE_AUTHOR("The mmops authors");
MODULE_DESCRIPTION("Holds the lock of a folio, for tests of mmops");
MODULE_LICENSE("GPL");
