package cli

import (
	"io"
	"os"

	"github.com/charmbracelet/x/term"
)

// terminalWidth tells how many columns a terminal has; ok is false where w is none, or
// is one that cannot move its cursor.
func terminalWidth(w io.Writer) (columns int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(f.Fd()) || os.Getenv("TERM") == "dumb" {
		return 0, false
	}
	columns, _, err := term.GetSize(f.Fd())
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns, true
}

// isTerminal tells whether a person looks at a stream, or may type into it.
func isTerminal(stream any) bool {
	f, isFile := stream.(*os.File)
	return isFile && term.IsTerminal(f.Fd())
}
