// SPDX-License-Identifier: GPL-2.0-only
/*
 * The text of tracepoints: what their TP_printk gives to the tracer, formatted here. Only the conversions that
 * mmutrace.h uses; a pointer is printed as 16 hexadecimal digits (the kernel prints a hash).
 */
#include <linux/kvm_host.h>
#include <linux/trace_events.h>
#include <linux/trace_seq.h>
#include "oracle.h"

char oracle_text[ORACLE_TEXT];

static size_t number(char *out, u64 value, unsigned int base, int width, bool alternate)
{
	char digits[24];
	size_t n = 0, len = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (n < width)
		digits[n++] = '0';
	if (alternate && base == 16)
		out[len++] = '0', out[len++] = 'x';
	while (n)
		out[len++] = digits[--n];
	return len;
}

static size_t format(char *out, const char *fmt, va_list args)
{
	size_t len = 0;

	for (; *fmt; fmt++) {
		bool alternate = false;
		int longs = 0, width = 0;
		const char *s;
		u64 value;

		if (*fmt != '%') {
			out[len++] = *fmt;
			continue;
		}
		for (fmt++; *fmt == '#' || *fmt == 'l' || (*fmt >= '0' && *fmt <= '9'); fmt++) {
			alternate |= *fmt == '#';
			longs += *fmt == 'l';
			width = *fmt >= '0' && *fmt <= '9' ? width * 10 + *fmt - '0' : width;
		}
		switch (*fmt) {
		case 's':
			for (s = va_arg(args, const char *); *s; s++)
				out[len++] = *s;
			break;
		case 'c':
			out[len++] = va_arg(args, int);
			break;
		case 'p':
			value = va_arg(args, unsigned long);
			len += number(out + len, value == oracle_world.here ? 0 : value, 16, 16, false);
			break;
		case 'd':
			value = longs ? va_arg(args, long) : va_arg(args, int);
			if ((s64)value < 0)
				out[len++] = '-', value = -value;
			len += number(out + len, value, 10, width, false);
			break;
		default:
			value = longs ? va_arg(args, unsigned long) : va_arg(args, unsigned int);
			if (oracle_world.here && value == oracle_world.here)
				value = 0;
			len += number(out + len, value, *fmt == 'u' ? 10 : 16, width, alternate);
		}
	}
	out[len] = 0;
	return len;
}

void trace_event_printf(struct trace_iterator *iter, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	format(oracle_text, fmt, args);
	va_end(args);
}

void trace_seq_printf(struct trace_seq *s, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	s->seq.len += format(s->buffer + s->seq.len, fmt, args);
	va_end(args);
}

static void piece(struct trace_seq *p, const char *text)
{
	while (*text)
		p->buffer[p->seq.len++] = *text++;
}

const char *trace_print_flags_seq(struct trace_seq *p, const char *delim, unsigned long flags,
				  const struct trace_print_flags *table)
{
	const char *start = p->buffer + p->seq.len;
	bool first = true;

	for (; table->name; table++) {
		if ((flags & table->mask) != table->mask)
			continue;
		flags &= ~table->mask;
		piece(p, first ? "" : delim);
		piece(p, table->name);
		first = false;
	}
	if (flags) {
		piece(p, first ? "" : delim);
		p->seq.len += number(p->buffer + p->seq.len, flags, 16, 0, true);
	}
	p->buffer[p->seq.len++] = 0;
	return start;
}

/* One event at a time. */
static u64 entry[64];

void *trace_event_buffer_reserve(struct trace_event_buffer *fbuffer, struct trace_event_file *trace_file,
				 unsigned long len)
{
	memset(entry, 0, sizeof(entry));
	return fbuffer->entry = entry;
}

void trace_event_buffer_commit(struct trace_event_buffer *fbuffer)
{
}

int trace_raw_output_prep(struct trace_iterator *iter, struct trace_event *event)
{
	return TRACE_TYPE_HANDLED;
}

enum print_line_t trace_handle_return(struct trace_seq *s)
{
	return TRACE_TYPE_HANDLED;
}

struct trace_iterator *oracle_iterator(void)
{
	static struct trace_iterator iter;

	iter.ent = (void *)entry;
	iter.tmp_seq.seq.buffer = iter.tmp_seq.buffer;
	iter.tmp_seq.seq.size = sizeof(iter.tmp_seq.buffer);
	iter.tmp_seq.seq.len = 0;
	return &iter;
}
