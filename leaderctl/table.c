/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Texts and tables that fit a terminal.
 *
 * Names are anybody's: what is no printable character is never sent to a
 * terminal as it is.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* wcwidth() */
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "leaderctl.h"

/* what is not shown on a narrower terminal either: it wraps there */
#define WIDTH_MIN 60
#define WIDTH 80				/* of what is no terminal */

/* no column becomes narrower than that for another one's sake */
#define COLUMN_MIN 6
#define GAP 2					/* between columns */

static bool is_terminal = false;
static bool has_colour = false;
static bool is_utf8 = false;

/* ---------------------------------------------------------------------
 * The terminal
 * ---------------------------------------------------------------------
 */

void
terminal_init(void)
{
	const char *term = getenv("TERM");
	const char *no_colour = getenv("NO_COLOR");

	setlocale(LC_CTYPE, "");
	is_utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	is_terminal = isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
	has_colour = is_terminal && (no_colour == NULL || no_colour[0] == '\0');
}

/* One that can move its cursor */
bool
terminal_is_there(void)
{
	return is_terminal;
}

static void
terminal_size(int *width, int *height)
{
	struct winsize size;

	*width = WIDTH;
	*height = 24;
	if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
	{
		if (size.ws_col > 0)
			*width = size.ws_col < WIDTH_MIN ? WIDTH_MIN : size.ws_col;
		if (size.ws_row > 0)
			*height = size.ws_row;
	}
}

int
terminal_width(void)
{
	int			width;
	int			height;

	terminal_size(&width, &height);
	return width;
}

int
terminal_height(void)
{
	int			width;
	int			height;

	terminal_size(&width, &height);
	return height;
}

const char *
terminal_colour(Colour colour)
{
	static const char *const codes[] = {
		[COLOUR_NONE] = "\033[0m",[COLOUR_TITLE] = "\033[1m",
		[COLOUR_GOOD] = "\033[32m",[COLOUR_CARE] = "\033[33m",
		[COLOUR_BAD] = "\033[31m"
	};

	return has_colour ? codes[colour] : "";
}

/* ---------------------------------------------------------------------
 * Texts
 * ---------------------------------------------------------------------
 */

/*
 * The character that text begins with, and its length in bytes; -1: a byte that
 * begins none.
 */
static int32_t
decode(const char *text, int *length)
{
	const unsigned char *byte = (const unsigned char *) text;
	int			n = byte[0] >= 0xf0 ? 4 : byte[0] >= 0xe0 ? 3 : byte[0] >= 0xc2 ? 2 : 1;
	int32_t		character = n == 1 ? byte[0] : byte[0] & (0xff >> (n + 1));

	*length = 1;
	if (byte[0] < 0x80)
		return byte[0];
	if (n == 1 || byte[0] > 0xf4)
		return -1;
	for (int i = 1; i < n; i++)
	{
		if ((byte[i] & 0xc0) != 0x80)
			return -1;
		character = character << 6 | (byte[i] & 0x3f);
	}
	if ((n == 3 && character < 0x800) || (n == 4 && character < 0x10000) ||
		character > 0x10ffff || (character >= 0xd800 && character < 0xe000))
		return -1;
	*length = n;
	return character;
}

/* What neither shows nor takes room, but makes a terminal show others wrongly */
static bool
is_invisible(int32_t character)
{
	return (character >= 0x200b && character <= 0x200f) ||
		(character >= 0x2028 && character <= 0x202e) ||
		(character >= 0x2060 && character <= 0x206f) || character == 0xfeff;
}

/* How the character is shown, in at least 16 bytes; returns how many columns. */
static int
show(const char *text, int length, int32_t character, char *shown)
{
	int			width;

	if (character < 0 || character < 0x20 || (character >= 0x7f && character < 0xa0))
		return sprintf(shown, "\\x%02x", character < 0 ? (unsigned char) *text : character);
	if (character < 0x80)
	{
		sprintf(shown, "%c", character);
		return 1;
	}
	width = is_utf8 ? wcwidth(character) : -1;
	if (width < 0 || is_invisible(character))
	{
		strcpy(shown, "?");
		return 1;
	}
	sprintf(shown, "%.*s", length, text);
	return width;
}

/* The same text, printable, in memory of its own */
char *
text_printable(const char *text)
{
	char	   *printable = malloc(16 * strlen(text) + 1);
	char	   *to = printable;
	int			length;

	if (printable == NULL)
		die(EXIT_FAILED, "out of memory");
	*to = '\0';
	for (; *text != '\0'; text += length)
	{
		int32_t		character = decode(text, &length);

		show(text, length, character, to);
		to += strlen(to);
	}
	return printable;
}

/* How many columns a printable text takes */
int
text_width(const char *text)
{
	int			width = 0;
	char		shown[16];
	int			length;

	for (; *text != '\0'; text += length)
	{
		int32_t		character = decode(text, &length);

		width += show(text, length, character, shown);
	}
	return width;
}

/* Write a printable text, and what is missing to that width; cut, if it must be. */
void
text_write(FILE *out, const char *text, int width, bool right)
{
	const char *ellipsis = is_utf8 ? "\xe2\x80\xa6" : "~";
	int			missing = width - text_width(text);
	int			used = 0;
	char		shown[16];
	int			length;

	if (right && missing > 0)
		fprintf(out, "%*s", missing, "");
	for (; *text != '\0'; text += length)
	{
		int32_t		character = decode(text, &length);
		int			needs = show(text, length, character, shown);

		if (missing < 0 && used + needs > width - 1)
		{
			fputs(ellipsis, out);
			used++;
			missing = width - used; /* a wide character may have left room */
			break;
		}
		fputs(shown, out);
		used += needs;
	}
	if (!right && missing > 0)
		fprintf(out, "%*s", missing, "");
}

/*
 * JSON as the server has made it, where it is none that a terminal can be
 * trusted with: it leaves in what is above ASCII's control characters.
 */
void
text_write_json(FILE *out, const char *json, bool in_a_line)
{
	int			length;

	for (; *json != '\0'; json += length)
	{
		int32_t		character = decode(json, &length);

		if (character == '\n' && in_a_line)
			fputc(' ', out);	/* between values: in a string it is \n */
		else if (character < 0 || (character >= 0x7f && character < 0xa0) ||
				 is_invisible(character))
			fprintf(out, "\\u%04x", character < 0 ? (unsigned char) *json : character);
		else
			fprintf(out, "%.*s", length, json);
	}
}

/* "8s", "12min", "5h", "3d": in one unit, rounded down; static memory. */
const char *
span_text(int64_t ms)
{
	static char text[4][24];
	static int	next = 0;
	char	   *to = text[next++ % 4];
	long long	seconds = ms / 1000;

	if (ms >= 100 && ms < 1000)
		snprintf(to, sizeof(text[0]), "%.1fs", ms / 1000.0);
	else if (seconds < 100)
		snprintf(to, sizeof(text[0]), "%llds", seconds);
	else if (seconds < 100 * 60)
		snprintf(to, sizeof(text[0]), "%lldmin", seconds / 60);
	else if (seconds < 48 * 3600)
		snprintf(to, sizeof(text[0]), "%lldh", seconds / 3600);
	else
		snprintf(to, sizeof(text[0]), "%lldd", seconds / 86400);
	return to;
}

/* ---------------------------------------------------------------------
 * Tables
 * ---------------------------------------------------------------------
 */

void
table_begin(Table *table, const TableColumn *columns, int n_columns)
{
	memset(table, 0, sizeof(Table));
	table->columns = columns;
	table->n_columns = n_columns;
}

/*
 * The next cell, row by row.  One that is NULL leaves its place to the one on
 * its left.
 */
void
table_add(Table *table, const char *text, Colour colour)
{
	if (table->n_cells == table->room)
	{
		table->room = table->room == 0 ? 64 : 2 * table->room;
		table->cells = realloc(table->cells, table->room * sizeof(TableCell));
		if (table->cells == NULL)
			die(EXIT_FAILED, "out of memory");
	}
	table->cells[table->n_cells].text = text != NULL ? text_printable(text) : NULL;
	table->cells[table->n_cells++].colour = colour;
}

static const TableCell *
cell_at(const Table *table, int row, int column)
{
	return &table->cells[row * table->n_columns + column];
}

/* How many columns does this cell take? */
static int
cell_span(const Table *table, int row, int column)
{
	int			span = 1;

	while (column + span < table->n_columns &&
		   cell_at(table, row, column + span)->text == NULL)
		span++;
	return span;
}

static int
span_width(const int *widths, int column, int span)
{
	int			width = GAP * (span - 1);

	for (int i = 0; i < span; i++)
		width += widths[column + i];
	return width;
}

/* Widen columns to what is in them, then make the widest narrower until all fit. */
static void
find_widths(const Table *table, int *widths)
{
	int			n_rows = table->n_cells / table->n_columns;
	int			excess;

	for (int column = 0; column < table->n_columns; column++)
		widths[column] = text_width(table->columns[column].title);
	for (int wide = 0; wide < 2; wide++)	/* those over several come later */
	{
		for (int i = 0; i < n_rows * table->n_columns; i++)
		{
			int			row = i / table->n_columns;
			int			column = i % table->n_columns;
			int			span = cell_span(table, row, column);
			int			needs;

			if (table->cells[i].text == NULL || (span > 1) != wide)
				continue;
			needs = text_width(table->cells[i].text) - span_width(widths, column, span);
			if (needs > 0)
				widths[column] += needs;
		}
	}
	excess = span_width(widths, 0, table->n_columns) - terminal_width();
	for (; excess > 0; excess--)
	{
		int			widest = -1;

		for (int column = 0; column < table->n_columns; column++)
		{
			if (table->columns[column].may_shrink && widths[column] > COLUMN_MIN &&
				(widest < 0 || widths[column] > widths[widest]))
				widest = column;
		}
		if (widest < 0)
			break;
		widths[widest]--;
	}
}

static void
write_cell(FILE *out, const char *text, Colour colour, int width, bool right, bool is_last)
{
	fputs(colour != COLOUR_NONE ? terminal_colour(colour) : "", out);
	text_write(out, text, is_last && !right && text_width(text) < width ? text_width(text) : width, right);
	fputs(colour != COLOUR_NONE ? terminal_colour(COLOUR_NONE) : "", out);
	if (!is_last)
		fprintf(out, "%*s", GAP, "");
}

/* Write the table, and forget it. */
void
table_write(Table *table, FILE *out)
{
	int			widths[TABLE_COLUMNS_MAX];
	int			n_rows = table->n_cells / table->n_columns;

	find_widths(table, widths);
	for (int column = 0; column < table->n_columns; column++)
		write_cell(out, table->columns[column].title, COLOUR_TITLE, widths[column],
				   table->columns[column].right, column == table->n_columns - 1);
	fputc('\n', out);
	for (int row = 0; row < n_rows; row++)
	{
		for (int column = 0, span; column < table->n_columns; column += span)
		{
			const TableCell *cell = cell_at(table, row, column);

			span = cell_span(table, row, column);
			write_cell(out, cell->text, cell->colour, span_width(widths, column, span),
					   table->columns[column].right && span == 1,
					   column + span == table->n_columns);
		}
		fputc('\n', out);
	}
	for (int i = 0; i < table->n_cells; i++)
		free(table->cells[i].text);
	free(table->cells);
	memset(table, 0, sizeof(Table));
}
