package flagd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	maxDocument = 16 << 20              // bytes
	lockRetry   = 10 * time.Millisecond // how soon a lock that another process holds is tried again
)

// File is a Store in a file of this machine. Beside it are FILE.leases, since flagd tells its clients of every change of the flags and a
// renewal is none, and FILE.lock. Others that edit the file at the same moment are safe if they lock FILE.lock, too.
type File struct{ path string }

var _ Store = (*File)(nil)

// NewFile is the store in the file at path, which must be there by the time that it is used.
func NewFile(path string) *File { return &File{filepath.Clean(path)} }

// Name implements Store.
func (f *File) Name() string { return f.path }

// Read implements Store.
func (f *File) Read(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return readFile(f.path)
}

// readFile reads a whole file, no longer than maxDocument.
func readFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s is a symbolic link, which can't be replaced in one step; want the file itself, or config_map for a mounted ConfigMap", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	case info.Size() > maxDocument:
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", path, info.Size(), maxDocument)
	}
	return os.ReadFile(path)
}

// Update implements Store.
func (f *File) Update(ctx context.Context, change func([]byte) ([]byte, error)) error {
	return f.locked(ctx, func() error {
		before, err := readFile(f.path)
		if err != nil {
			return err
		}
		after, err := change(before)
		if err != nil || bytes.Equal(before, after) {
			return err
		}
		// Somebody who does not lock may have written since.
		if now, err := readFile(f.path); err != nil || !bytes.Equal(now, before) {
			return errors.Join(errors.New("somebody else is writing it"), err)
		}
		return writeFile(f.path, after)
	})
}

// Renewals implements Store.
func (f *File) Renewals(ctx context.Context) (map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := readFile(f.path + ".leases")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	stamps := map[string]string{}
	if json.Unmarshal(raw, &stamps) != nil {
		return nil, nil // no stamp is one that nobody changes: the guard counts on
	}
	return stamps, nil
}

// Renew implements Store. A file of leases that makes no sense is begun anew: what matters is who renews now.
func (f *File) Renew(ctx context.Context, flag, stamp string) error {
	return f.locked(ctx, func() error {
		stamps, err := f.Renewals(ctx)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if stamps == nil {
			stamps = map[string]string{}
		}
		stamps[flag] = stamp
		raw, err := json.MarshalIndent(stamps, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the leases: %w", err)
		}
		return writeFile(f.path+".leases", append(raw, '\n'))
	})
}

// locked runs do while no other process, and nobody else in this one, changes the flags or their leases.
func (f *File) locked(ctx context.Context, do func() error) error {
	// Every holder has a handle of its own, so that the lock is between goroutines, too.
	lock := flock.New(f.path + ".lock")
	ok, err := lock.TryLockContext(ctx, lockRetry)
	if err != nil || !ok {
		return fmt.Errorf("lock %s.lock: %w", f.path, err)
	}
	defer func() { _ = lock.Close() }()
	return do()
}

// writeFile replaces a file in one step: whoever reads it, whenever the machine stops, has the old one or the new one.
func writeFile(path string, data []byte) (err error) {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	next, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = next.Close()
			_ = os.Remove(next.Name())
		}
	}()
	if err := next.Chmod(mode); err != nil {
		return err
	}
	if _, err := next.Write(data); err != nil {
		return err
	}
	if err := next.Sync(); err != nil {
		return err
	}
	if err := next.Close(); err != nil {
		return err
	}
	if err := os.Rename(next.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a rename last over a power cut.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
