#!/bin/sh
# musl.sh SOURCES ROOT: build a root file system of musl, busybox and CPython, like Alpine's `python` images.
# SOURCES has Debian's source archives of zlib, libffi, OpenSSL and Python; musl-gcc and busybox are the machine's.
set -eu
sources=$1
root=$2
cd "$sources"
for archive in *.orig.tar.*[!c]; do tar xf "$archive"; done # not the signatures, *.asc

# musl's compiler, with the multiarch name that CPython's configure asks for.

cat >"$sources/cc" <<'CC'
#!/bin/sh
case "$*" in *-print-multiarch*) echo "$(uname -m)-linux-musl"; exit ;; esac
exec musl-gcc "$@"
CC
chmod +x "$sources/cc"
export CC="$sources/cc"

libraries=$sources/libraries
(
    cd zlib-*/
    CFLAGS="-O2 -fPIC" ./configure --prefix="$libraries" --static
    make -j2 libz.a
    make install
)
(
    cd libffi-*/
    ./configure --prefix="$libraries" --disable-shared --with-pic --disable-exec-static-tramp --disable-docs \
        --disable-multi-os-directory
    make -j2
    make install
)
(
    cd openssl-*/ # for `ssl`, without which uvloop cannot be imported; the fewer parts, the sooner it is compiled
    ./Configure "linux-$(uname -m)" --prefix="$libraries" --libdir=lib -fPIC -O1 no-shared no-module no-tests \
        no-engine no-asm no-secure-memory no-legacy no-cmp no-cms no-ts no-srp no-aria no-bf no-camellia no-cast no-gost \
        no-idea no-md4 no-mdc2 no-rc2 no-rc4 no-rmd160 no-seed no-siphash no-sm2 no-sm3 no-sm4 no-whirlpool
    make -j2 build_libs
    make install_dev
)
(
    cd Python-*/
    export CPPFLAGS="-I$libraries/include" LDFLAGS="-L$libraries/lib" PKG_CONFIG=false
    export LIBFFI_CFLAGS="-I$libraries/include" LIBFFI_LIBS="-L$libraries/lib -lffi"
    ./configure --prefix=/usr/local --disable-test-modules --with-ensurepip=install \
        --with-openssl="$libraries"
    make -j2
    make install DESTDIR="$root"
)

cd "$root"
mkdir -p bin etc lib tmp usr/bin
chmod 1777 tmp
cp "$(command -v busybox)" bin/busybox
for applet in $(bin/busybox --list | grep -vx busybox); do ln -s busybox "bin/$applet"; done
ln -s /bin/env usr/bin/env
libc=$(ls /usr/lib/*-linux-musl/libc.so)
cp "$libc" "lib/ld-musl-$(uname -m).so.1"
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
ln -s python3 usr/local/bin/python
ln -s pip3 usr/local/bin/pip
rm -rf usr/local/lib/libpython*.a usr/local/lib/python3.*/config-* usr/local/lib/python3.*/test usr/local/share
