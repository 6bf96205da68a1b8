package memlog

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/record"
)

// Scripts are the scripts of a directory. Each line of a script is a command, and what stands below the
// "----" after it is the answer. The commands are those of Writing, and:
//
//	mode durable|page-cache    Configure
//	begin OFFSET               Clear
//	restart                    the node ends in order, and starts again
//	crash                      the node loses power; records that were not durable and are left are cut
//	tails EPOCH...             EpochEnd of each epoch
//	show                       the start, the end, the committed end, and the records
//	watermark                  without an offset: the high watermark, which a restart may lower
//
// A record is written as EPOCH:VALUE. RunScript runs a script on a log and returns it with the log's
// answers. So one script tells what Log and what another log does.
func Scripts(dir fs.FS) (map[string][]byte, error) {
	names, err := fs.Glob(dir, "*.txt")
	if err != nil {
		return nil, err
	}
	scripts := map[string][]byte{}
	for _, name := range names {
		if scripts[name], err = fs.ReadFile(dir, name); err != nil {
			return nil, err
		}
	}
	return scripts, nil
}

// RunScript runs a script on an empty log. The error is one of the script.
func RunScript(log Examined, script []byte) (answered []byte, err error) {
	r := runner{log: log, rng: rand.New(rand.NewPCG(1, 1))}
	var out bytes.Buffer
	inAnswer := false
	for line := range strings.Lines(string(script)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case inAnswer && line != "":
			continue
		case inAnswer || line == "" || line[0] == '#':
			inAnswer = false
			out.WriteString(line + "\n")
		default:
			answer, err := r.run(strings.Fields(line))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			fmt.Fprintf(&out, "%s\n----\n%s\n", line, answer)
			inAnswer = true
		}
	}
	return out.Bytes(), nil
}

// runner runs the commands of a script.
type runner struct {
	log Examined
	rng *rand.Rand
}

// run runs a command.
func (r *runner) run(f []string) (answer string, err error) {
	l := r.log
	numbers, entries, err := parseArguments(f[1:])
	if err != nil {
		return "", err
	}
	var first record.Offset
	if len(numbers) > 0 {
		first = record.Offset(numbers[0])
	}
	switch f[0] {
	case "append":
		return outcome(l.Append(record.Epoch(first), numbers[min(1, len(numbers)):]...)), nil
	case "copy":
		return outcome(l.AppendAt(first, entries...)), nil
	case "epoch":
		return outcome(l.BeginEpoch(record.Epoch(first))), nil
	case "truncate":
		return outcome(l.Truncate(first)), nil
	case "cut":
		return outcome(l.Cut(int32(first), record.Offset(numbers[min(1, len(numbers)-1)]))), nil
	case "start":
		return outcome(l.SetStart(first)), nil
	case "begin":
		return outcome(l.Clear(first)), nil
	case "watermark":
		if len(numbers) == 0 {
			return fmt.Sprint(l.HighWatermark()), nil
		}
		l.SetHighWatermark(first)
	case "commit":
		l.Commit()
	case "mode":
		l.Configure(len(f) > 1 && f[1] == "page-cache")
	case "restart":
		l.Restart()
	case "crash":
		return r.crash()
	case "tails":
		for _, e := range numbers {
			epoch, end := l.EpochEnd(record.Epoch(e))
			answer += fmt.Sprintf("%d: %d at %d\n", e, epoch, end)
		}
		return strings.TrimSuffix(answer, "\n"), nil
	case "show":
		return r.show()
	default:
		return "", fmt.Errorf("there is no command %s", f[0])
	}
	return "ok", nil
}

// crash crashes the log. A log in page-cache mode keeps what it was told to make durable by a change of
// the mode, a cut or a restart, and the script must show no more.
func (r *runner) crash() (string, error) {
	committed := r.log.Committed()
	r.log.Lose(r.rng)
	if r.log.End() > committed {
		return outcome(r.log.Truncate(committed)), nil
	}
	return "ok", nil
}

func (r *runner) show() (string, error) {
	l := r.log
	es, err := l.Read(l.Start(), int(l.End()-l.Start()))
	if err != nil {
		return "", err
	}
	s := fmt.Appendf(nil, "%d to %d, committed %d:", l.Start(), l.End(), l.Committed())
	for i, e := range es {
		if at := l.Start() + record.Offset(i); l.EpochAt(at) != e.Epoch {
			return "", fmt.Errorf("the epoch at %d is %d, and that of its record is %d", at, l.EpochAt(at), e.Epoch)
		}
		s = fmt.Appendf(s, " %d:%d", e.Epoch, e.Value)
	}
	return string(s), nil
}

// parseArguments parses numbers and records.
func parseArguments(words []string) (numbers []uint64, entries []Entry, err error) {
	for _, w := range words {
		epoch, value, isEntry := strings.Cut(w, ":")
		if !isEntry {
			if n, err := strconv.ParseUint(w, 10, 64); err == nil { // modes are no numbers
				numbers = append(numbers, n)
			}
			continue
		}
		var e Entry
		n, err := strconv.ParseInt(epoch, 10, 32)
		if err != nil {
			return nil, nil, err
		}
		e.Epoch = record.Epoch(n)
		if e.Value, err = strconv.ParseUint(value, 10, 64); err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	return numbers, entries, nil
}

func outcome(err error) string {
	if err != nil {
		return "refused"
	}
	return "ok"
}
