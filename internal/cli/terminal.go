package cli

import (
	"io"
	"os"

	"github.com/charmbracelet/x/term"
)

// terminalSize tells how many columns and rows a terminal has; ok is false if w is not a
// terminal, or is one that cannot move its cursor.
func terminalSize(w io.Writer) (columns, rows int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(f.Fd()) || os.Getenv("TERM") == "dumb" {
		return 0, 0, false
	}
	columns, rows, err := term.GetSize(f.Fd())
	if err != nil || columns <= 0 || rows <= 0 {
		columns, rows = 80, 24
	}
	return columns, rows, true
}

// terminalWidth is terminalSize without the rows.
func terminalWidth(w io.Writer) (columns int, ok bool) {
	columns, _, ok = terminalSize(w)
	return columns, ok
}

// isTerminal tells whether a stream is a terminal, where a person reads or types.
func isTerminal(stream any) bool {
	f, isFile := stream.(*os.File)
	return isFile && term.IsTerminal(f.Fd())
}
