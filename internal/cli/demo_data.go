package cli

import (
	"bytes"
	"compress/gzip"
	_ "embed" // for the access log
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// accessLogGz is a real web site's access log; data/README.md says whose.
//
//go:embed data/web-access.log.gz
var accessLogGz []byte

// accessLine is one line of the log: who asked, and all of it.
type accessLine struct{ client, text []byte }

// unpackAccessLog unpacks the log.
func unpackAccessLog() ([]accessLine, error) {
	z, err := gzip.NewReader(bytes.NewReader(accessLogGz))
	if err != nil {
		return nil, fmt.Errorf("unpacking the access log: %w", err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("unpacking the access log: %w", err)
	}
	var lines []accessLine
	for text := range bytes.Lines(data) {
		text = bytes.TrimRight(text, "\n")
		client, _, _ := bytes.Cut(text, []byte(" "))
		lines = append(lines, accessLine{client: client, text: text})
	}
	return lines, nil
}

// demoDirectory is where the demo's node keeps its data.
type demoDirectory struct {
	data      string // does not exist before the node starts
	temporary string // holds it, and is removed at the end; "": the data stay
}

// makeDemoDirectory chooses a data directory that does not exist yet: the one that the user names, or
// one among the temporary files.
func makeDemoDirectory(wish string) (demoDirectory, error) {
	if wish == "" {
		dir, err := os.MkdirTemp("", "leat-demo-"+time.Now().Format("0102-1504")+"-*")
		if err != nil {
			return demoDirectory{}, fmt.Errorf("making a data directory: %w", err)
		}
		return demoDirectory{data: filepath.Join(dir, "data"), temporary: dir}, nil
	}
	if _, err := os.Stat(wish); err == nil {
		return demoDirectory{}, fmt.Errorf("%s exists already: the demo needs a directory that does not exist, name another one with --data", wish)
	}
	return demoDirectory{data: wish}, nil
}

// removeTemporary deletes the data if they are temporary.
func (d demoDirectory) removeTemporary() error {
	if d.temporary == "" {
		return nil
	}
	return os.RemoveAll(d.temporary)
}
