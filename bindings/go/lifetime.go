package nucleus

import (
	"math"
	"sync"
	"sync/atomic"
)

// A lifetime counts the calls that use a C object, so that Close can wait for them. It is not a sync.RWMutex, because
// of log callbacks. A callback may use an object that its goroutine already uses, while another goroutine closes the
// object. With a lock, the second use would wait for Close, and Close would wait for the first use.
//
// A copy of an object would have the same C object and a second count, so objects are not copied. `go vet` reports a
// copy, because the struct contains an atomic.Int64.
type lifetime struct {
	// The number of users, plus math.MinInt64 after Close has begun.
	users   atomic.Int64
	once    sync.Once
	drained chan struct{}
}

func (l *lifetime) init() { l.drained = make(chan struct{}) }

// acquire registers a user. It returns false if the object is closed or was never created. If it returns true, the
// caller must call release.
func (l *lifetime) acquire() bool {
	if l.drained == nil {
		return false
	}
	for {
		users := l.users.Load()
		if users < 0 {
			return false
		}
		if l.users.CompareAndSwap(users, users+1) {
			return true
		}
	}
}

func (l *lifetime) release() {
	if l.users.Add(-1) == math.MinInt64 {
		close(l.drained)
	}
}

// close calls destroy after the last user has released the object. Only the first call has an effect.
func (l *lifetime) close(destroy func() error) (err error) {
	if l.drained == nil {
		return nil
	}
	l.once.Do(func() {
		if l.users.Add(math.MinInt64) != math.MinInt64 {
			<-l.drained
		}
		err = destroy()
	})
	return err
}
