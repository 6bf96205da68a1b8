package interop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	cacheEnv   = "LEAT_INTEROP_CACHE"    // where installs are kept, instead of .cache
	requireEnv = "LEAT_TEST_REQUIRE_ALL" // "1": a tool that cannot be had is a failure

	installTries   = 3
	installTimeout = 15 * time.Minute // librdkafka is compiled for Node on two cores in two
)

// cacheDir returns a folder of what is kept between runs.
func cacheDir(name string) (string, error) {
	root := os.Getenv(cacheEnv)
	if root == "" {
		root = ".cache"
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, name)
	return dir, os.MkdirAll(dir, 0o755)
}

// missing ends a test for a tool that cannot be had.
func missing(t *testing.T, name string, err error) {
	t.Helper()
	if os.Getenv(requireEnv) == "1" {
		t.Fatalf("%s cannot be installed: %v", name, err)
	}
	t.Skipf("%s cannot be installed: %v", name, err)
}

// kit is something to install once: a folder of the cache that its inputs fill.
type kit struct {
	name   string
	needs  []program                                   // what the machine must have
	inputs []string                                    // files of ours that decide what is installed; copied into the folder
	fill   func(ctx context.Context, dir string) error // fills the folder

	once sync.Once
	dir  string
	err  error
}

// program is a command that a kit needs, and Debian's packages that bring it.
type program struct {
	command  string // looked up in PATH; a path is a file that must exist
	packages string
}

// have returns the kit's folder, installed at first use. Without it the test
// is skipped, or fails where everything is required.
func (k *kit) have(t *testing.T) string {
	t.Helper()
	k.once.Do(func() { k.dir, k.err = k.install(t) })
	if k.err != nil {
		missing(t, k.name, k.err)
	}
	return k.dir
}

func (k *kit) install(t *testing.T) (string, error) {
	t.Helper()
	for _, p := range k.needs {
		if err := p.install(); err != nil {
			return "", err
		}
	}
	if k.fill == nil {
		return "", nil
	}
	parent, err := cacheDir("")
	if err != nil {
		return "", err
	}
	// When an input changes, all is installed afresh.
	content := sha256.New()
	for _, path := range k.inputs {
		file, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		content.Write(file)
	}
	name := fmt.Sprintf("%s-%x", k.name, content.Sum(nil)[:4])
	// Two runs of the suite may share the cache.
	lock, err := os.OpenFile(filepath.Join(parent, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	dir := filepath.Join(parent, name)
	complete := filepath.Join(dir, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	began := time.Now()
	for try := range installTries {
		if err = os.RemoveAll(dir); err != nil {
			return "", err
		}
		if err = os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		if err = k.fillOnce(dir); err == nil {
			t.Logf("installed %s in %v", k.name, time.Since(began).Round(time.Second))
			return dir, os.WriteFile(complete, nil, 0o600)
		}
		t.Logf("install %s, try %d: %v", k.name, try+1, err)
	}
	return "", err
}

func (k *kit) fillOnce(dir string) error {
	for _, path := range k.inputs {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o600); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	return k.fill(ctx, dir)
}

var apt sync.Mutex // apt-get runs alone, and needs its lists only once

var aptLists = sync.OnceValue(func() error {
	return command(context.Background(), "", nil, "apt-get", "-q", "update")
})

func (p program) install() error {
	if p.there() {
		return nil
	}
	apt.Lock()
	defer apt.Unlock()
	if p.there() {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing (on Debian or Ubuntu: apt-get install %s)", p.command, p.packages)
	}
	err := errors.New("not tried")
	for range installTries {
		if err = aptLists(); err != nil {
			continue
		}
		args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, strings.Fields(p.packages)...)
		if err = command(context.Background(), "", []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", args...); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if !p.there() {
		return fmt.Errorf("%s is missing although %s is installed", p.command, p.packages)
	}
	return nil
}

// there reports whether the command, or the first file that the pattern names, exists.
func (p program) there() bool {
	if filepath.IsAbs(p.command) {
		found, err := filepath.Glob(p.command)
		return err == nil && len(found) > 0
	}
	_, err := exec.LookPath(p.command)
	return err == nil
}

// command runs a command in dir with more environment and returns the end of
// its output with the error.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := out.String()
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text[max(0, len(text)-3000):])
	}
	return nil
}

// copyModule copies the source of a module that go.mod requires.
func copyModule(ctx context.Context, module, to string) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("go list -m %s: %w", module, err)
	}
	return os.CopyFS(to, os.DirFS(strings.TrimSpace(string(out))))
}

var kcatKit = kit{name: "kcat", needs: []program{{"kcat", "kcat"}}}

// javaKit holds the jars of Apache Kafka and its tools.
var javaKit = kit{
	name:   "kafka",
	needs:  []program{{"javac", "default-jdk-headless"}, {"mvn", "maven"}},
	inputs: []string{"java/pom.xml"},
	fill: func(ctx context.Context, dir string) error {
		return command(ctx, dir, nil, "mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=libs")
	},
}

// javaDriverKit holds our drivers in Java, compiled.
var javaDriverKit = kit{
	name:   "java-driver",
	inputs: []string{"java/Driver.java", "java/Tools.java", "java/pom.xml"},
	fill: func(ctx context.Context, dir string) error {
		return command(ctx, dir, nil, "javac", "-nowarn", "-d", ".", "-cp", filepath.Join(javaKit.dir, "libs", "*"), "Driver.java", "Tools.java")
	},
}

// formerJavaKit holds the jars of a Java client that came before Kafka 4.
var formerJavaKit = kit{
	name:   "kafka-former",
	needs:  javaKit.needs,
	inputs: []string{"java/former/pom.xml"},
	fill:   javaKit.fill,
}

// formerDriverKit holds our driver in Java, compiled for that client.
var formerDriverKit = kit{
	name:   "java-driver-former",
	inputs: []string{"java/Driver.java", "java/former/pom.xml"},
	fill: func(ctx context.Context, dir string) error {
		return command(ctx, dir, nil, "javac", "-nowarn", "-d", ".", "-cp", filepath.Join(formerJavaKit.dir, "libs", "*"), "Driver.java")
	},
}

// java returns the command that runs a class of the jars in a small, quickly starting JVM.
func java(t *testing.T, heapMB int, class string, args ...string) *exec.Cmd {
	t.Helper()
	libs := filepath.Join(javaKit.have(t), "libs", "*")
	return jvm(heapMB, []string{javaDriverKit.have(t), libs}, class, args...)
}

// jvm returns the command that runs a class in a small, quickly starting JVM.
func jvm(heapMB int, classpath []string, class string, args ...string) *exec.Cmd {
	return exec.Command("java", append([]string{
		fmt.Sprintf("-Xmx%dm", heapMB), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", strings.Join(classpath, string(os.PathListSeparator)), class,
	}, args...)...)
}

// jarsKit returns a kit of the jars that the pom.xml of a folder names, and no others: their checksums are in
// sums.txt beside it. The folder's program in Java, if there is one, is compiled against them.
func jarsKit(name, dir, program string) *kit {
	k := &kit{
		name:   name,
		needs:  javaKit.needs,
		inputs: []string{filepath.Join(dir, "pom.xml"), filepath.Join(dir, "sums.txt")},
	}
	if program != "" {
		k.inputs = append(k.inputs, filepath.Join(dir, program))
	}
	k.fill = func(ctx context.Context, dir string) error {
		if err := command(ctx, dir, nil, "mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=libs"); err != nil {
			return err
		}
		if err := checkSums(filepath.Join(dir, "sums.txt"), filepath.Join(dir, "libs")); err != nil || program == "" {
			return err
		}
		return command(ctx, dir, nil, "javac", "-nowarn", "-d", ".", "-cp", filepath.Join("libs", "*"), program)
	}
	return k
}

// checkSums compares the files of a folder with a list of their checksums, as sha256sum writes it.
func checkSums(list, dir string) error {
	var have strings.Builder
	files, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return err
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&have, "%x  %s\n", sha256.Sum256(content), f.Name())
	}
	want, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	if have.String() != string(want) {
		return fmt.Errorf("the jars are not those whose checksums are in %s, but\n%s", filepath.Base(list), have.String())
	}
	return nil
}

var pythonKit = kit{
	name:   "python",
	needs:  []program{{"python3", "python3 python3-venv"}},
	inputs: []string{"python/requirements.txt"},
	fill: func(ctx context.Context, dir string) error {
		if err := command(ctx, dir, nil, "python3", "-m", "venv", "venv"); err != nil {
			// Debian has venv in a package of its own.
			more := program{"/usr/lib/python3*/ensurepip", "python3-venv"}
			if installErr := more.install(); installErr != nil {
				return errors.Join(err, installErr)
			}
			if err := command(ctx, dir, nil, "python3", "-m", "venv", "--clear", "venv"); err != nil {
				return err
			}
		}
		return command(ctx, dir, nil, filepath.Join("venv", "bin", "pip"), "install", "-q", "-r", "requirements.txt")
	},
}

var kafkajsKit = kit{
	name:   "kafkajs",
	needs:  []program{{"node", "nodejs"}, {"npm", "npm"}},
	inputs: []string{"js/kafkajs/package.json"},
	fill: func(ctx context.Context, dir string) error {
		return command(ctx, dir, nil, "npm", "install", "--no-audit", "--no-fund")
	},
}

// confluentJSKit compiles the librdkafka that the package carries: its
// prebuilt binary is not in the registry, and a test installs by name only.
// Linked dynamically, its build uses the system's libraries; linked statically,
// it would download their sources.
var confluentJSKit = kit{
	name: "confluent-js",
	needs: []program{
		{"node", "nodejs"},
		{"npm", "npm"},
		{"g++", "g++"},
		{"make", "make"},
		{"python3", "python3"},
		{"/usr/include/zlib.h", "zlib1g-dev"},
		{"/usr/include/zstd.h", "libzstd-dev"},
		{"/usr/include/openssl/ssl.h", "libssl-dev"},
		{"/usr/include/*/curl/curl.h", "libcurl4-openssl-dev"},
	},
	inputs: []string{"js/confluent/package.json"},
	fill: func(ctx context.Context, dir string) error {
		env := []string{"CKJS_LINKING=dynamic", "npm_config_build_from_source=true"}
		if headers := nodeHeaders(); headers != "" {
			env = append(env, "npm_config_nodedir="+headers)
		}
		return command(ctx, dir, env, "npm", "install", "--no-audit", "--no-fund", "--foreground-scripts")
	},
}

// nodeHeaders returns the folder in which node's own headers are, "" if the
// build has to look for them itself.
func nodeHeaders() string {
	node, err := exec.LookPath("node")
	if err != nil {
		return ""
	}
	if node, err = filepath.EvalSymlinks(node); err != nil {
		return ""
	}
	prefix := filepath.Dir(filepath.Dir(node))
	if _, err := os.Stat(filepath.Join(prefix, "include", "node", "node.h")); err != nil {
		return ""
	}
	return prefix
}
