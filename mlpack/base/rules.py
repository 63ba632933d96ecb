"""What is left out of a base: files no device reads, by path, each with its reason.

A rule earns its place by bytes; what a licence asks to travel with the binaries
(``copyright``, ``LICENSE``, ``NOTICE``) stays. The rules are part of a base's
identity: changing one changes the recipe digest, so a new base is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from mlpack.oci.digest import Digest
from mlpack.oci.document import canonical


@dataclass(frozen=True, slots=True)
class Rule:
    """Paths that are left out, and why; ``but`` are those that stay all the same."""

    why: str
    paths: tuple[str, ...]
    """Patterns: ``*`` is any text without a slash, ``**`` any text."""

    but: tuple[str, ...] = ()
    unless_needed: bool = False
    """Libraries that stay where something in the base is linked to them."""

    def covers(self, path: str, needed: frozenset[str] = frozenset()) -> bool:
        """Whether this rule leaves ``path`` out."""
        if not _pattern(self.paths).fullmatch(path) or _pattern(self.but).fullmatch(path):
            return False
        return not (self.unless_needed and path.rpartition("/")[2] in needed)


DEBIAN = (
    Rule(
        "documentation and translations",
        (
            "usr/share/doc/**",
            "usr/share/{man,info,locale,lintian,bug,bash-completion,doc-base,gdb,gcc}/**",
            "usr/share/{common-licenses,pixmaps,readline,dict,polkit-1,binfmts}/**",
        ),
        but=("usr/share/doc/*/copyright", "usr/share/doc/*"),
    ),
    Rule(
        "package management and log rotation, of which nothing runs in a container",
        (
            "etc/{apt,dpkg,cron.daily,logrotate.d,alternatives,update-motd.d,default,skel}/**",
            "usr/share/{debconf,dpkg,perl5,base-files,keyrings}/**",
            "usr/lib/{dpkg,binfmt.d}/**",
            "var/lib/{apt,dpkg}/**",
            "etc/{issue,issue.net,debconf.conf,fstab}",
            "usr/sbin/update-ca-certificates",
        ),
    ),
    Rule(
        "programs for maintainer scripts, of which none runs, and their settings",
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
    Rule(
        "what is the build machine's, or made by the container engine",
        ("etc/{hostname,hosts,resolv.conf}", "dev/**", "{bin,sbin,lib,lib32,lib64,libx32}"),
    ),
    Rule(
        "libraries of what is left out",
        (
            "usr/lib/*/lib{acl,com_err,db-5.3,gssapi_krb5,history,k5crypto,keyutils,krb5}.so*",
            "usr/lib/*/lib{krb5support,md,ncursesw,pcre2-8,pcre2-posix,readline}.so*",
            "usr/lib/*/lib{selinux,tinfo,tirpc,zstd}.so*",
        ),
        unless_needed=True,
    ),
    Rule(
        "single certificates: /etc/ssl/certs/ca-certificates.crt holds them all",
        ("usr/share/ca-certificates/**", "etc/ca-certificates/**"),
    ),
    Rule(
        "character set converters of the C library: Python brings its own",
        ("usr/lib/*/gconv/**",),
    ),
    Rule(
        "time zones under their old names (right/, posix/)",
        ("usr/share/zoneinfo/{right,posix}/**",),
    ),
    Rule(
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
    Rule(
        "Python modules for terminals and old databases (curses, readline, nis, dbm.ndbm)",
        ("usr/lib/python3.*/lib-dynload/{_curses,_curses_panel,readline,nis,_dbm,ossaudiodev}.*",),
    ),
    Rule(
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
    Rule("byte code, which another Python would not read", ("**/__pycache__/**", "**/*.pyc")),
    Rule("programs for the build machine", ("bin/**", "share/{man,doc}/**", ".lock")),
    Rule(
        "installation records: the lock has the versions and hashes",
        ("*.dist-info/{RECORD,INSTALLER,REQUESTED,direct_url.json,WHEEL,uv_cache.json}",),
    ),
    Rule(
        "what compilers and linkers read",
        ("**/*.{pxd,pyx,a,cpp,pdb}", "numpy/{_core,core}/{include,lib}/**", "numpy/_configtool.py"),
    ),
    Rule(
        "tests of well-known packages",
        (
            "{numpy,pandas,scipy,sklearn,joblib,skimage,statsmodels,sympy,networkx}/**/tests/**",
            "numpy/{conftest.py,_pyinstaller/**}",
            "numpy/_core/_{operand_flag,rational,struct_ufunc,umath}_tests.*",
            "numpy/_core/_multiarray_tests.*",
        ),
    ),
    Rule(
        "type stubs",
        ("**/*.pyi", "**/py.typed"),
    ),
    Rule(
        "numpy's Fortran wrapper generator and its build tools",
        ("numpy/{f2py,distutils}/**",),
    ),
    Rule(
        "onnxruntime's tools for making models, and the C library beside the Python module",
        (
            "onnxruntime/{tools,transformers,quantization,datasets,backend}/**",
            "onnxruntime/capi/libonnxruntime.so*",
            "onnxruntime/capi/{convert_npz_to_onnx_adapter,onnxruntime_collect_build_info}.py",
        ),
    ),
    Rule(
        "zstandard's second backend, for interpreters other than CPython",
        ("zstandard/{_cffi.*,backend_cffi.py}",),
    ),
)
"""Rules over the Python packages; paths below the directory they are installed in."""

_ONLY_FOR_ONNXRUNTIME = (
    *("coloredlogs", "flatbuffers", "humanfriendly", "packaging", "protobuf", "sympy"),
)
ONLY_FOR_TOOLS = {
    "onnxruntime": _ONLY_FOR_ONNXRUNTIME,
    "onnxruntime-gpu": _ONLY_FOR_ONNXRUNTIME,
}
"""Dependencies that a package declares for the parts left out above; scoring imports none of them.

They are left out where nothing else asks for them, neither a package nor the project.
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one rule left out of one platform's base."""

    why: str
    files: int
    bytes: int


def rule_for(rules: Iterable[Rule], path: str, needed: frozenset[str] = frozenset()) -> Rule | None:
    """The first rule that leaves ``path`` out, or ``None`` where it stays."""
    return next((rule for rule in rules if rule.covers(path, needed)), None)


def rules_digest() -> Digest:
    """One name for all rules, for the identity of a base."""
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
    """A pattern of ours as a regular expression.

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
