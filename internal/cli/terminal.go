package cli

import (
	"io"
	"os"

	"github.com/charmbracelet/x/term"
)

// terminalWidth tells how many columns a terminal has; ok is false where w is none.
func terminalWidth(w io.Writer) (columns int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(f.Fd()) {
		return 0, false
	}
	columns, _, err := term.GetSize(f.Fd())
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns, true
}
