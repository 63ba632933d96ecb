"""Rules for the files to leave out of a base, because no device reads them, with reasons.

Each rule saves a relevant number of bytes. Files that licences require next to the binaries
(``copyright``, ``LICENSE``, ``NOTICE``) stay. The rules are part of a base's identity: changing
one changes the recipe digest, so a new base is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from mlpack.oci.descriptor import Digest, canonical


@dataclass(frozen=True, slots=True)
class PruneRule:
    """Paths to leave out, and why; those that match ``but`` stay."""

    why: str
    paths: tuple[str, ...]
    """Patterns: ``*`` is any text without a slash, ``**`` any text."""

    but: tuple[str, ...] = ()
    unless_needed: bool = False
    """Whether libraries stay that something in the base is linked to."""

    def covers(self, path: str, needed: frozenset[str] = frozenset()) -> bool:
        """Whether this rule leaves ``path`` out."""
        if not _pattern(self.paths).fullmatch(path) or _pattern(self.but).fullmatch(path):
            return False
        return not (self.unless_needed and path.rpartition("/")[2] in needed)


DEBIAN = (
    PruneRule(
        "documentation and translations",
        (
            "usr/share/doc/**",
            "usr/share/{man,info,locale,lintian,bug,bash-completion,doc-base,gdb,gcc}/**",
            "usr/share/{common-licenses,pixmaps,readline,dict,polkit-1,binfmts}/**",
        ),
        but=("usr/share/doc/*/copyright", "usr/share/doc/*"),
    ),
    PruneRule(
        "package management and log rotation, which do not run in a container",
        (
            "etc/{apt,dpkg,cron.daily,logrotate.d,alternatives,update-motd.d,default,skel}/**",
            "usr/share/{debconf,dpkg,perl5,base-files,keyrings}/**",
            "usr/lib/{dpkg,binfmt.d}/**",
            "var/lib/{apt,dpkg}/**",
            "etc/{issue,issue.net,debconf.conf,fstab}",
            "usr/sbin/update-ca-certificates",
        ),
    ),
    PruneRule(
        "programs for maintainer scripts, which do not run, and their settings",
        (
            "usr/bin/{dpkg,dpkg-*,deb*,update-alternatives,tar,mawk,openssl,c_rehash,perl*}",
            "usr/sbin/{dpkg-*,start-stop-daemon,rmt*,tarcat}",
            "usr/lib/{ssl,tmpfiles.d}/**",
            "usr/{lib/*,share}/perl*/**",
            "etc/{rmt,ssl/openssl.cnf,selinux/**,gss/**,inputrc,netconfig}",
            "usr/lib/{mime,systemd}/**",
            "usr/lib/*/krb5/**",
            "usr/libexec/dpkg/**",
            "var/cache/**",
        ),
    ),
    PruneRule(
        "the C library's programs, which come with its locale, and their settings",
        (
            "usr/bin/{catchsegv,getconf,getent,iconv,ldd,locale,localedef,pldd,tzselect,zdump}",
            "usr/sbin/{iconvconfig,ldconfig,zic}",
            "usr/share/libc-bin/**",
            "etc/{bindresvport.blacklist,gai.conf,ld.so.conf,ld.so.conf.d/**}",
        ),
    ),
    PruneRule(
        "files of the build machine, or made by the container engine",
        ("etc/{hostname,hosts,resolv.conf}", "dev/**", "{bin,sbin,lib,lib32,lib64,libx32}"),
    ),
    PruneRule(
        "libraries of programs left out",
        (
            "usr/lib/*/lib{acl,com_err,db-5.3,gssapi_krb5,history,k5crypto,keyutils,krb5}.so*",
            "usr/lib/*/lib{krb5support,md,ncursesw,pcre2-8,pcre2-posix,readline}.so*",
            "usr/lib/*/lib{selinux,tinfo,tirpc,zstd}.so*",
        ),
        unless_needed=True,
    ),
    PruneRule(
        "single certificates: /etc/ssl/certs/ca-certificates.crt holds them all",
        ("usr/share/ca-certificates/**", "etc/ca-certificates/**"),
    ),
    PruneRule(
        "character set converters of the C library: Python brings its own",
        ("usr/lib/*/gconv/**",),
    ),
    PruneRule(
        "time zones under their old names (right/, posix/)",
        ("usr/share/zoneinfo/{right,posix}/**",),
    ),
    PruneRule(
        "Python's test suites, teaching programs and build tools",
        (
            "usr/lib/python3.*/{test,distutils,lib2to3,idlelib,turtledemo,ensurepip,pydoc_data}/**",
            "usr/lib/python3.*/{turtle,antigravity,this,_aix_support,_osx_support}.py",
            "usr/lib/python3.*/lib-dynload/{_test*,_xxtest*,_ctypes_test,xxlimited*,xxsub*}.so",
            "usr/lib/python3.*/**/{test,tests}/**",
            "usr/lib/python3.*/config-*/**",
            "usr/include/**",
            "**/__pycache__/**",
        ),
    ),
    PruneRule(
        "Python modules for terminals and old databases (curses, readline, nis, dbm.ndbm)",
        ("usr/lib/python3.*/lib-dynload/{_curses,_curses_panel,readline,nis,_dbm,ossaudiodev}.*",),
    ),
    PruneRule(
        "C library parts for debuggers, profilers and programs of before 1997",
        (
            "usr/lib/*/lib{memusage,pcprofile,c_malloc_debug}.so*",
            "usr/lib/*/audit/**",
            "usr/lib/*/{libexpatw,libmvec,libnsl,libthread_db,libBrokenLocale,libanl}.so*",
            "usr/lib/*/lib{panelw,menuw,formw,tic}.so*",
        ),
        unless_needed=True,
    ),
)
"""Rules over the Debian part; the paths are those after the merge of ``/lib`` into ``/usr``."""

PACKAGES = (
    PruneRule("byte code, which another Python would not read", ("**/__pycache__/**", "**/*.pyc")),
    PruneRule("programs for the build machine", ("bin/**", "share/{man,doc}/**", ".lock")),
    PruneRule(
        "installation records: the lock has the versions and hashes",
        (
            "*.dist-info/{RECORD,INSTALLER,REQUESTED,direct_url.json,WHEEL,uv_cache.json}",
            "*.dist-info/sboms/**",
        ),
    ),
    PruneRule(
        "files for compilers and linkers",
        ("**/*.{pxd,pyx,a,cpp,pdb}", "numpy/{_core,core}/{include,lib}/**", "numpy/_configtool.py"),
    ),
    PruneRule(
        "tests of well-known packages",
        (
            "{numpy,pandas,scipy,sklearn,joblib,skimage,statsmodels,sympy,networkx}/**/tests/**",
            "numpy/{conftest.py,_pyinstaller/**}",
            "numpy/_core/_{operand_flag,rational,struct_ufunc,umath}_tests.*",
            "numpy/_core/_multiarray_tests.*",
        ),
    ),
    PruneRule(
        "type stubs",
        ("**/*.pyi", "**/py.typed"),
    ),
    PruneRule(
        "numpy's Fortran wrapper generator and its build tools",
        ("numpy/{f2py,distutils}/**",),
    ),
    PruneRule(
        "onnxruntime's tools for making models, and the C library next to the Python module",
        (
            "onnxruntime/{tools,transformers,quantization,datasets,backend}/**",
            "onnxruntime/capi/libonnxruntime.so*",
            "onnxruntime/capi/{convert_npz_to_onnx_adapter,onnxruntime_collect_build_info}.py",
        ),
    ),
    PruneRule(
        "zstandard's second backend, for interpreters other than CPython",
        ("zstandard/{_cffi.*,backend_cffi.py}",),
    ),
)
"""Rules over the Python packages; paths below the directory they are installed in."""

ONLY_FOR_TOOLS = dict.fromkeys(
    ("onnxruntime", "onnxruntime-gpu"),
    ("coloredlogs", "flatbuffers", "humanfriendly", "packaging", "protobuf", "sympy"),
)
"""Dependencies of the parts left out above; scoring imports none of them.

They are left out if neither another package nor the project requires them.
"""


@dataclass(frozen=True, slots=True)
class PrunedFiles:
    """What one rule left out of one platform's base."""

    why: str
    files: int
    bytes: int


class PruneCount:
    """Counts the files each rule leaves out."""

    def __init__(self) -> None:
        self._found: dict[str, PrunedFiles] = {}

    def add(self, rule: PruneRule, size: int) -> None:
        """Count a file of ``size`` bytes."""
        before = self._found.get(rule.why, PrunedFiles(rule.why, 0, 0))
        self._found[rule.why] = PrunedFiles(rule.why, before.files + 1, before.bytes + size)

    def files(self) -> tuple[PrunedFiles, ...]:
        """Return the counts, in the order the rules were first met."""
        return tuple(self._found.values())


def rule_for(
    rules: Iterable[PruneRule], path: str, needed: frozenset[str] = frozenset()
) -> PruneRule | None:
    """Return the first rule that leaves ``path`` out, or ``None`` if it stays."""
    return next((rule for rule in rules if rule.covers(path, needed)), None)


def rules_digest() -> Digest:
    """Return the digest of all rules, for the identity of a base."""
    listed = [
        [rule.why, list(rule.paths), list(rule.but), rule.unless_needed]
        for rule in (*DEBIAN, *PACKAGES)
    ]
    only = {name: list(listed) for name, listed in ONLY_FOR_TOOLS.items()}
    return Digest.of(canonical({"rules": listed, "only_for_tools": only}))


@cache
def _pattern(paths: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_translate(path) for path in paths) or r"(?!)")


def _translate(glob: str) -> str:
    """Translate a pattern to a regular expression.

    >>> _translate("usr/{a,b}/*.so")
    'usr/(?:a|b)/[^/]*\\\\.so'
    """
    pieces = {
        "**/": "(?:.*/)?",
        "**": ".*",
        "*": "[^/]*",
        "{": "(?:",
        "}": ")",
        ",": "|",
        ".": r"\.",
    }
    found = re.findall(r"\*\*/|\*\*|[*{},.]|[^*{},.]+", glob)
    return "".join(pieces.get(piece) or re.escape(piece) for piece in found)
