package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// uiOff is the --ui-port that turns the web UI off.
const uiOff = -1

// namespacePattern is what Temporal accepts as a namespace's name.
var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

// options are the settings of one stack.
type options struct {
	host        string // an IP address after resolve
	port        int    // 0: a free one
	uiPort      int    // 0: a free one; uiOff: no UI
	dbFile      string // empty: in memory; absolute after resolve
	namespace   string
	addrFile    string // empty: none
	logLevel    slog.Level
	showVersion bool
}

// parseOptions reads the command line. Help goes to stdout and is flag.ErrHelp.
func parseOptions(args []string, stdout io.Writer) (options, error) {
	var (
		o        options
		headless bool
		level    string
	)
	flags := flag.NewFlagSet("devstack", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.host, "host", "127.0.0.1", "`address` to listen on; there is no authentication, so keep it local")
	flags.IntVar(&o.port, "port", 7233, "`port` of the Temporal frontend (gRPC); 0 takes a free one")
	flags.IntVar(&o.uiPort, "ui-port", 8233, "`port` of the web UI; 0 takes a free one, -1 turns the UI off")
	flags.BoolVar(&headless, "headless", false, "no web UI (the same as --ui-port -1)")
	flags.StringVar(&o.dbFile, "db-filename", "", "SQLite `file` that keeps the state over restarts; empty keeps it in memory")
	flags.StringVar(&o.namespace, "namespace", "default", "`name` of the namespace to create")
	flags.StringVar(&o.addrFile, "addr-file", "", "`file` to write the addresses to, as JSON, once ready")
	flags.StringVar(&level, "log-level", "error", "what to log to stderr: debug, info, warn, error or never")
	flags.BoolVar(&o.showVersion, "version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(flags, stdout)
		}
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q: devstack takes flags only", flags.Arg(0))
	}
	if headless {
		o.uiPort = uiOff
	}
	err := errors.Join(
		setLevel(&o.logLevel, level),
		checkPort("--port", o.port, 0),
		checkPort("--ui-port", o.uiPort, uiOff),
		checkNamespace(o.namespace),
	)
	if err == nil && o.port != 0 && o.port == o.uiPort {
		err = fmt.Errorf("--port and --ui-port are both %d: they must differ", o.port)
	}
	return o, err
}

func printUsage(flags *flag.FlagSet, w io.Writer) {
	fmt.Fprintln(w, "devstack runs a Temporal server with its web UI in one process, for development and tests.\n\nFlags:")
	flags.VisitAll(func(f *flag.Flag) {
		name, usage := flag.UnquoteUsage(f)
		head := strings.TrimSpace("--" + f.Name + " " + name)
		def := ""
		if f.DefValue != "" && f.DefValue != "false" {
			def = " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-20s  %s%s\n", head, usage, def)
	})
}

func setLevel(level *slog.Level, name string) error {
	switch name {
	case "debug":
		*level = slog.LevelDebug
	case "info":
		*level = slog.LevelInfo
	case "warn":
		*level = slog.LevelWarn
	case "error":
		*level = slog.LevelError
	case "never":
		*level = levelSilent
	default:
		return fmt.Errorf("--log-level %q: want debug, info, warn, error or never", name)
	}
	return nil
}

func checkPort(flagName string, port, least int) error {
	if port < least || port > 65535 {
		return fmt.Errorf("%s %d: want a number from %d to 65535", flagName, port, least)
	}
	return nil
}

func checkNamespace(name string) error {
	if !namespacePattern.MatchString(name) {
		return fmt.Errorf("--namespace %q: want 2 to 255 letters, digits, dots, dashes or underscores", name)
	}
	return nil
}

// resolve turns names into what the server needs: an IP address, absolute files, and ports that are free now. It fails,
// naming the flag, when a port is taken or a folder is missing.
func (o *options) resolve() error {
	ip, err := lookupHost(o.host)
	if err != nil {
		return err
	}
	o.host = ip.String()
	if o.dbFile, err = absoluteFile("--db-filename", o.dbFile); err != nil {
		return err
	}
	if strings.ContainsAny(o.dbFile, "?#%") {
		return fmt.Errorf("--db-filename %s: the characters ? # %% cannot be part of it", o.dbFile)
	}
	if o.addrFile, err = absoluteFile("--addr-file", o.addrFile); err != nil {
		return err
	}
	if o.port, err = claimPort(o.host, o.port, "--port"); err != nil {
		return err
	}
	if o.uiPort != uiOff {
		o.uiPort, err = claimPort(o.host, o.uiPort, "--ui-port")
	}
	return err
}

// lookupHost returns the IP address of a host; the server binds to nothing else.
func lookupHost(host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	ips, err := net.LookupIP(host)
	if err != nil {
		return nil, fmt.Errorf("--host %q: want an IP address or a name that resolves to one: %w", host, err)
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip, nil
		}
	}
	return ips[0], nil
}

// absoluteFile makes a file's name absolute and checks that its folder exists. An empty name stays empty.
func absoluteFile(flagName, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", flagName, name, err)
	}
	dir := filepath.Dir(abs)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s %s: the folder %s does not exist; create it first", flagName, name, dir)
	case err != nil:
		return "", fmt.Errorf("%s %s: %w", flagName, name, err)
	case !info.IsDir():
		return "", fmt.Errorf("%s %s: %s is not a folder", flagName, name, dir)
	}
	if info, err := os.Stat(abs); err == nil && info.IsDir() {
		return "", fmt.Errorf("%s %s: this is a folder, want a file", flagName, name)
	}
	return abs, nil
}

// addresses is where a stack can be reached; it is the content of the address file.
type addresses struct {
	Frontend string `json:"frontend"` // host:port of the gRPC frontend
	UI       string `json:"ui"`       // URL of the web UI, empty when it is off
}

// writeAddrFile writes the addresses in one step, so that a reader never sees half a file.
func writeAddrFile(name string, a addresses) error {
	if name == "" {
		return nil
	}
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write --addr-file: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("write --addr-file: %w", err)
	}
	return nil
}

// removeAddrFile removes the file of an earlier run: it must not name a stack that does not answer.
func removeAddrFile(name string) error {
	if name == "" {
		return nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove --addr-file: %w", err)
	}
	return nil
}
