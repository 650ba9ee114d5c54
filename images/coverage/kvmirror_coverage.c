// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hands the counters of modules that gcc instrumented (-fprofile-arcs) to user space.
 *
 * The kernel has neither CONFIG_GCOV_KERNEL nor CONFIG_CONSTRUCTORS: what instrumented code links to is here, and the
 * constructors that name an object's counters are found in the module's symbols and called before the module's own
 * code runs. /sys/kernel/debug/kvmirror_coverage is, an object after the other, in words of 32 bits:
 *
 *	length of the name in words, version, stamp, checksum, number of functions; the name, padded with zeros;
 *	for each function ident, checksum of its lines, checksum of its graph, number of counters; the counters, each of
 *	64 bits
 *
 * When a module goes, what it had counted to the end of its exit function is kept until the file is written to.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#if __GNUC__ < 12
#error "gcc 12 or newer is needed: what older ones emit is laid out otherwise"
#elif __GNUC__ < 14
#define KINDS 8
#else
#define KINDS 9
#endif

/* What gcc emits for an object. Only one kind of counters is asked for, those of arcs: the first. */
struct gcov_counters {
	unsigned int number;
	u64 *values;
};

struct gcov_function {
	const struct gcov_info *owner; /* another object's where the linker kept that one's copy */
	unsigned int ident;
	unsigned int lines_checksum;
	unsigned int graph_checksum;
	struct gcov_counters arcs;
};

struct gcov_info {
	unsigned int version;
	struct gcov_info *next;
	unsigned int stamp;
	unsigned int checksum;
	const char *name;
	void (*merge[KINDS])(u64 *values, unsigned int number);
	unsigned int functions;
	const struct gcov_function *const *function;
};

struct object {
	struct list_head list;
	const struct gcov_info *info; /* NULL when its module is gone */
	u32 *kept;		      /* then this is what it had counted */
	size_t words;
};

struct snapshot {
	size_t bytes;
	u32 words[];
};

static LIST_HEAD(objects);
static DEFINE_MUTEX(lock);
static struct dentry *file;

void __gcov_init(struct gcov_info *info);
void __gcov_exit(void);
void __gcov_merge_add(u64 *values, unsigned int number);

/* Called by an object's constructor, which construct() calls under the lock. */
void __gcov_init(struct gcov_info *info)
{
	struct object *object = kzalloc(sizeof(*object), GFP_KERNEL);

	if (WARN_ON(!object))
		return;
	object->info = info;
	list_add_tail(&object->list, &objects);
}
EXPORT_SYMBOL_GPL(__gcov_init);

/* Destructors are not run in a module. */
void __gcov_exit(void)
{
}
EXPORT_SYMBOL_GPL(__gcov_exit);

/* Only named in gcov_info, to say that the object counts arcs; there is no file to merge with. */
void __gcov_merge_add(u64 *values, unsigned int number)
{
}
EXPORT_SYMBOL_GPL(__gcov_merge_add);

static void put(u32 *to, size_t *at, u32 word)
{
	if (to)
		to[*at] = word;
	++*at;
}

/* Writes an object's counters to "to", unless that is NULL; returns how many words they are. */
static size_t encode(const struct gcov_info *info, u32 *to)
{
	size_t name = DIV_ROUND_UP(strlen(info->name), sizeof(u32));
	unsigned int i, j, functions = 0;
	size_t at = 0;

	for (i = 0; i < info->functions; i++)
		functions += info->function[i] && info->function[i]->owner == info;
	put(to, &at, name);
	put(to, &at, info->version);
	put(to, &at, info->stamp);
	put(to, &at, info->checksum);
	put(to, &at, functions);
	if (to)
		memcpy(&to[at], info->name, strlen(info->name));
	at += name;
	for (i = 0; i < info->functions; i++) {
		const struct gcov_function *function = info->function[i];

		if (!function || function->owner != info)
			continue;
		put(to, &at, function->ident);
		put(to, &at, function->lines_checksum);
		put(to, &at, function->graph_checksum);
		put(to, &at, function->arcs.number);
		for (j = 0; j < function->arcs.number; j++) {
			u64 value = READ_ONCE(function->arcs.values[j]);

			put(to, &at, lower_32_bits(value));
			put(to, &at, upper_32_bits(value));
		}
	}
	return at;
}

/* gcc names the constructor of an object that is instrumented by its priority. */
static void construct(struct module *module)
{
	const struct mod_kallsyms *symbols = rcu_dereference_raw(module->kallsyms);
	unsigned int i;

	for (i = 1; i < symbols->num_symtab; i++) {
		const Elf_Sym *symbol = &symbols->symtab[i];
		const char *name = symbols->strtab + symbol->st_name;

		if (symbol->st_shndx != SHN_UNDEF && strstarts(name, "_sub_I_00100_"))
			((void (*)(void))symbol->st_value)();
	}
}

static void forget(struct object *object)
{
	list_del(&object->list);
	vfree(object->kept);
	kfree(object);
}

static void keep(struct object *object)
{
	object->words = encode(object->info, NULL);
	object->kept = vzalloc(array_size(object->words, sizeof(u32)));
	if (WARN_ON(!object->kept)) {
		forget(object);
		return;
	}
	encode(object->info, object->kept);
	object->info = NULL;
}

static int changed(struct notifier_block *block, unsigned long state, void *data)
{
	struct module *module = data;
	struct object *object, *next;

	mutex_lock(&lock);
	if (state == MODULE_STATE_COMING)
		construct(module);
	if (state == MODULE_STATE_GOING)
		list_for_each_entry_safe(object, next, &objects, list)
			if (object->info && within_module((unsigned long)object->info, module))
				keep(object);
	mutex_unlock(&lock);
	return NOTIFY_OK;
}

static struct notifier_block notifier = { .notifier_call = changed };

/* The counters as they are when the file is opened. */
static int coverage_open(struct inode *inode, struct file *opened)
{
	struct snapshot *snapshot;
	struct object *object;
	size_t words = 0;

	mutex_lock(&lock);
	list_for_each_entry(object, &objects, list)
		words += object->info ? encode(object->info, NULL) : object->words;
	snapshot = vzalloc(struct_size(snapshot, words, words));
	if (snapshot) {
		snapshot->bytes = words * sizeof(u32);
		words = 0;
		list_for_each_entry(object, &objects, list) {
			if (object->info) {
				words += encode(object->info, &snapshot->words[words]);
			} else {
				memcpy(&snapshot->words[words], object->kept, object->words * sizeof(u32));
				words += object->words;
			}
		}
	}
	mutex_unlock(&lock);
	opened->private_data = snapshot;
	return snapshot ? 0 : -ENOMEM;
}

static ssize_t coverage_read(struct file *opened, char __user *to, size_t bytes, loff_t *at)
{
	const struct snapshot *snapshot = opened->private_data;

	return simple_read_from_buffer(to, bytes, at, snapshot->words, snapshot->bytes);
}

static void forget_kept(bool all)
{
	struct object *object, *next;

	mutex_lock(&lock);
	list_for_each_entry_safe(object, next, &objects, list)
		if (all || !object->info)
			forget(object);
	mutex_unlock(&lock);
}

static ssize_t coverage_write(struct file *opened, const char __user *from, size_t bytes, loff_t *at)
{
	forget_kept(false);
	return bytes;
}

static int coverage_release(struct inode *inode, struct file *opened)
{
	vfree(opened->private_data);
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = coverage_open,
	.read = coverage_read,
	.write = coverage_write,
	.release = coverage_release,
	.llseek = default_llseek,
};

static int __init coverage_init(void)
{
	int error = register_module_notifier(&notifier);

	if (!error)
		file = debugfs_create_file("kvmirror_coverage", 0600, NULL, NULL, &operations);
	return error;
}
module_init(coverage_init);

static void __exit coverage_exit(void)
{
	debugfs_remove(file);
	unregister_module_notifier(&notifier);
	forget_kept(true);
}
module_exit(coverage_exit);

MODULE_DESCRIPTION("Counters of instrumented modules for kvmirror");
MODULE_LICENSE("GPL");
