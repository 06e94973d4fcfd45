package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a PostgreSQL server with data of its own, which only listens on this machine.
type Postgres struct {
	*Process
	Address string // host:port, kept over a restart

	dir      string
	password string
	as       *syscall.Credential // nil: the user who runs this
}

// NewPostgres makes a cluster with a superuser named aviary and starts its server. Call Remove in the end.
func NewPostgres(ctx context.Context) (*Postgres, error) {
	// Not below a folder of the caller's: the server may run as another user, who could not reach it.
	dir, err := os.MkdirTemp("", "aviary-postgres-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, password: Token()}
	if err = p.init(ctx); err == nil {
		err = p.Start(ctx)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

func (p *Postgres) init(ctx context.Context) error {
	initdb, err := Binary("initdb")
	if err != nil {
		return fmt.Errorf("%w (`make postgres` gets it)", err)
	}
	secret := filepath.Join(p.dir, "password")
	if err := os.WriteFile(secret, []byte(p.password), 0o600); err != nil {
		return err
	}
	if os.Geteuid() == 0 { // as which PostgreSQL refuses to run
		if p.as, err = somebodyElse(); err != nil {
			return err
		}
		for _, path := range []string{p.dir, secret} {
			if err := os.Chown(path, int(p.as.Uid), int(p.as.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := exec.CommandContext(ctx, initdb, "--pgdata", p.data(), "--username", "aviary", "--pwfile", secret, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--no-locale", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = p.dir, &syscall.SysProcAttr{Credential: p.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.Address = l.Addr().String()
	return l.Close()
}

// somebodyElse is a user who is not root.
func somebodyElse() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// Start starts the server again after Kill, and waits until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	bin, err := Binary("postgres")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		return err
	}
	args := []string{"-D", p.data(), "-p", port, "-h", "127.0.0.1", "-k", ""}
	for _, setting := range []string{"fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=200", "autovacuum=off"} {
		args = append(args, "-c", setting)
	}
	for {
		_ = os.Remove(p.status()) // of a server that was killed
		if p.Process, err = RunAs(p.as, "postgres", filepath.Join(p.dir, "postgres.log"), nil, bin, args...); err != nil {
			return err
		}
		if err = p.answers(ctx); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "shared memory") {
			return err
		}
		// What a killed server had started takes a moment to notice.
	}
}

// status is the file in which a server says how far it is.
func (p *Postgres) status() string { return filepath.Join(p.data(), "postmaster.pid") }

func (p *Postgres) answers(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _ := os.ReadFile(p.status())
		if lines := strings.Split(string(status), "\n"); len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-p.Done():
			return p.failed()
		case <-ctx.Done():
			p.Kill()
			return fmt.Errorf("postgres is not ready: %w\n%s", ctx.Err(), tail(p.Log, 15))
		case <-tick.C:
		}
	}
}

// DSN is where to connect to a database as the superuser.
func (p *Postgres) DSN(database string) string {
	return p.DSNOf("aviary", p.password, database, p.Address)
}

// DSNOf is where to connect as somebody, at the server's address or that of a proxy.
func (p *Postgres) DSNOf(name, password, database, address string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(name, password), Host: address, Path: database}
	return u.String()
}

// Remove ends the server and deletes its data.
func (p *Postgres) Remove() error {
	p.Kill()
	return os.RemoveAll(p.dir)
}
