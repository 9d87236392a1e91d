// SPDX-License-Identifier: GPL-2.0
/*
 * The cost of a call follows what is mapped, and not the range. What is counted
 * is the memory of the caller's bitmap that a harvest touches: the whole of it
 * has 512 MiB here.
 */
#include "mmops_selftest.h"
#include "kselftest_harness.h"

/* 16 TiB of file. */
#define FILE_PAGES	(1UL << 32)
#define PIECE_PAGES	(1UL << 18)
#define MIB_PAGES	256UL
/* Pages of bitmap for one piece. */
#define WINDOW		8UL

FIXTURE(sparse)
{
	int dev;
	int fd;
	struct harvest h;
};

FIXTURE_SETUP(sparse)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = new_memfd(FILE_PAGES);
	ASSERT_LE(0, self->fd);
	self->h.bits = FILE_PAGES;
	self->h.bitmap = mmap(NULL, FILE_PAGES / 8, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, self->h.bitmap);
	ASSERT_EQ(0, madvise(self->h.bitmap, FILE_PAGES / 8, MADV_NOHUGEPAGE));
}

FIXTURE_TEARDOWN(sparse)
{
}

/* Pages of the bitmap that were ever touched. */
static size_t touched(const struct harvest *h)
{
	size_t i, n = 0, pages = h->bits / 8 / page_size();
	unsigned char *vec = malloc(pages);

	if (!vec || mincore(h->bitmap, h->bits / 8, vec))
		return ~0UL;
	for (i = 0; i < pages; i++)
		n += vec[i] & 1;
	free(vec);
	return n;
}

/* 12 MiB are mapped, in three places. */
TEST_F_TIMEOUT(sparse, small_mappings, TEST_SECONDS)
{
	static const size_t at[] = {
		0, FILE_PAGES / 3 & ~(MIB_PAGES - 1), FILE_PAGES - 4 * MIB_PAGES,
	};
	char *map[3];
	size_t i;

	for (i = 3; i-- > 0;) {
		map[i] = map_shared(self->fd, at[i], 4 * MIB_PAGES);
		ASSERT_NE(NULL, map[i]);
		store(map[i], i, 1);
		store(map[i], 4 * MIB_PAGES - 1, 1);
	}
	ASSERT_EQ(6, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	ASSERT_EQ(3 * WINDOW, touched(&self->h));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(test_bit(self->h.bitmap, at[i] + i));
		ASSERT_TRUE(test_bit(self->h.bitmap, at[i] + 4 * MIB_PAGES - 1));
	}
	ASSERT_EQ(0, self->h.start);
	ASSERT_EQ(FILE_PAGES, self->h.end);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	store(map[1], 7, 1);
	ASSERT_EQ(7, write_protect(self->dev, self->fd, 0, FILE_PAGES));
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	ASSERT_EQ(3 * WINDOW, touched(&self->h));
}

/* All of the file is mapped, as a database does, and little of it was ever used. */
TEST_F_TIMEOUT(sparse, large_mapping, TEST_SECONDS)
{
	static const size_t at[] = { 5, FILE_PAGES / 2 + 1, FILE_PAGES - 1 };
	char *map = map_shared(self->fd, 0, FILE_PAGES);
	size_t i;

	ASSERT_NE(NULL, map);
	for (i = 0; i < 3; i++)
		store(map, at[i], 1);
	ASSERT_EQ(3, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	ASSERT_EQ(3 * WINDOW, touched(&self->h));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(test_bit(self->h.bitmap, at[i]));
	}
	ASSERT_EQ(3, write_protect(self->dev, self->fd, 0, FILE_PAGES));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, FILE_PAGES));
}

/* Mappings over each other, the later ones with the earlier pages. */
TEST_F_TIMEOUT(sparse, overlapping_mappings, TEST_SECONDS)
{
	size_t i;

	for (i = 0; i < 4; i++) {
		size_t first = (6 - 2 * i) * PIECE_PAGES;
		char *map = map_shared(self->fd, first, FILE_PAGES - first);

		ASSERT_NE(NULL, map);
		store(map, 1, 1);
		store(map, PIECE_PAGES - 1, 1);
	}
	ASSERT_EQ(8, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	ASSERT_EQ(4 * WINDOW, touched(&self->h));
	for (i = 0; i < 4; i++) {
		ASSERT_TRUE(test_bit(self->h.bitmap, 2 * i * PIECE_PAGES + 1));
		ASSERT_TRUE(test_bit(self->h.bitmap, (2 * i + 1) * PIECE_PAGES - 1));
	}
	/* The range begins and ends inside pieces. */
	ASSERT_EQ(6, write_protect(self->dev, self->fd, 2, 6 * PIECE_PAGES));
}

/* A bitmap that is not all there is refused, also where nothing would be stored to it. */
TEST_F_TIMEOUT(sparse, hole_in_bitmap, TEST_SECONDS)
{
	char *map = map_shared(self->fd, 0, 1);
	char *bitmap = (char *)self->h.bitmap;

	ASSERT_NE(NULL, map);
	store(map, 0, 1);
	ASSERT_EQ(0, mprotect(bitmap + (256UL << 20), page_size(), PROT_READ));
	ASSERT_EQ(-EFAULT, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	ASSERT_EQ(0, munmap(bitmap + (256UL << 20), page_size()));
	ASSERT_EQ(-EFAULT, clean_record(self->dev, self->fd, 0, FILE_PAGES, &self->h));
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, FILE_PAGES / 2, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, 0));
}

TEST_HARNESS_MAIN
