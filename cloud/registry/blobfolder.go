package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"
)

// blobStore keeps bytes by digest in a bucket. A bucket in a folder needs more
// care than one behind a service: fileblob writes beside the target and renames
// on Close, but syncs neither the file nor the folder.
type blobStore struct {
	bucket *blob.Bucket
	dir    string // of a folder bucket, else ""
}

func openBlobFolder(dir string) (*blobStore, error) {
	b, err := fileblob.OpenBucket(dir, &fileblob.Options{
		CreateDir:   true,
		DirFileMode: 0o700,
		NoTempDir:   true, // rename needs one file system
		Metadata:    fileblob.MetadataDontWrite,
	})
	if err != nil {
		return nil, err
	}
	s := &blobStore{bucket: b, dir: dir}
	if err := s.sweep(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return s, nil
}

// staleAfter is the age from which a temporary file cannot belong to a write
// under way.
const staleAfter = 24 * time.Hour

// sweep removes what killed writers left.
func (s *blobStore) sweep() error {
	found, err := filepath.Glob(filepath.Join(globQuote(s.dir), "sha256", "??", "*.tmp"))
	if err != nil {
		return err
	}
	for _, path := range found {
		st, err := os.Stat(path)
		if err != nil || time.Since(st.ModTime()) < staleAfter {
			continue // gone meanwhile, or in use
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// globQuote takes the meaning from the special characters of a path.
func globQuote(path string) string {
	return strings.NewReplacer("\\", "\\\\", "*", "\\*", "?", "\\?", "[", "\\[").Replace(path)
}

func (s *blobStore) close() error { return s.bucket.Close() }

// key spreads blobs over 256 folders.
func (s *blobStore) key(digest string) string { return "sha256/" + digest[:2] + "/" + digest }

func (s *blobStore) size(ctx context.Context, digest string) (int64, error) {
	a, err := s.bucket.Attributes(ctx, s.key(digest))
	if err != nil {
		return 0, s.named(digest, err)
	}
	return a.Size, nil
}

func (s *blobStore) open(ctx context.Context, digest string, off, n int64) (io.ReadCloser, error) {
	r, err := s.bucket.NewRangeReader(ctx, s.key(digest), off, n, nil)
	if err != nil {
		return nil, s.named(digest, err)
	}
	return r, nil
}

// named turns the bucket's missing key into ErrCorrupt: the caller has seen a
// row, and the row promises bytes.
func (s *blobStore) named(digest string, err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return fmt.Errorf("%w: blob %s is listed but its file is gone; store it again", ErrCorrupt, digest)
	}
	return err
}

// write returns when the bytes would survive a power cut.
func (s *blobStore) write(ctx context.Context, digest string, src io.Reader) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var f *os.File
	w, err := s.bucket.NewWriter(ctx, s.key(digest), &blob.WriterOptions{
		ContentType: "application/octet-stream", // else the first bytes are held back to guess it
		BeforeWrite: func(as func(any) bool) error {
			if !as(&f) && s.dir != "" {
				return errors.New("internal error: a folder bucket hides its file")
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, src)
	if err == nil && f != nil {
		err = f.Sync()
	}
	if err != nil {
		cancel() // so that Close throws the partial file away
		return errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return err
	}
	return s.syncFolders(digest)
}

// syncFolders makes the rename durable, and the folder itself if it is new.
func (s *blobStore) syncFolders(digest string) error {
	if s.dir == "" {
		return nil
	}
	for d := filepath.Dir(filepath.Join(s.dir, filepath.FromSlash(s.key(digest)))); ; d = filepath.Dir(d) {
		if err := syncDir(d); err != nil {
			return err
		}
		if d == s.dir || len(d) <= len(s.dir) {
			return nil
		}
	}
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
