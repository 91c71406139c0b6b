"""The bounds of everything that comes from outside, in one frozen class with units."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of what outsiders send is accepted."""

    recipe_bytes: int = 1 * MIB
    """A computeops.toml."""
    build_file_bytes: int = 4 * MIB
    """A build.sh, Dockerfile or definition file."""
    taken_bytes: int = 64 * MIB
    """What `new --from` copies of the files that a build file takes from beside it."""
    taken_files: int = 1000
    """How many of these."""
    solved_bytes: int = 64 * MIB
    """What Spack, pixi or conda-lock found out: the packages of an environment."""
    build_log_bytes: int = 256 * MIB
    """What a build prints; of more, the beginning is kept, and the end in the error."""
    manifest_bytes: int = 4 * MIB
    """An OCI manifest or index (OCI distribution-spec 1.1 asks for at least 4 MiB)."""
    config_bytes: int = 8 * MIB
    """An OCI image config, or a JSON object inside a SIF."""
    evidence_bytes: int = 64 * MIB
    """One DSSE envelope; SBOMs of large images reach tens of MiB."""
    key_bytes: int = 256 * KIB
    """One key of a keyring, both halves."""
    signatures: int = 64
    """Signatures of one envelope."""
    sif_signature_bytes: int = 4 * MIB
    """One signature object of a SIF; it lists two digests for each object."""
    json_depth: int = 64
    """Nesting of any JSON document."""
    layers: int = 512
    """Layers of one OCI image."""
    image_bytes: int = 1024 * GIB
    """Sum of the file contents of one image, unpacked."""
    file_bytes: int = 256 * GIB
    """One file inside an image, as its header declares it."""
    entries: int = 10_000_000
    """Files, folders and links of one image."""
    path_bytes: int = 4096
    """One path or link target inside an image (Linux PATH_MAX)."""
    name_bytes: int = 255
    """One component of a path (Linux NAME_MAX)."""
    path_depth: int = 1024
    """Components of one path inside an image."""
    xattr_bytes: int = 1 * MIB
    """All extended attributes of one entry."""
    inflate_ratio: int = 5000
    """Uncompressed to compressed bytes of one layer, beyond the first 64 MiB: above it is a bomb."""
    sif_descriptors: int = 4096
    """Slots in the descriptor table of a SIF."""
    package_database_bytes: int = 512 * MIB
    """A dpkg, apk or rpm database inside an image."""
    package_files_bytes: int = 1 * GIB
    """All files of one image that record packages, together: databases, file lists, copyright files, metadata."""
    program_bytes: int = 4 * GIB
    """A program inside an image whose list of modules is looked for; it is kept on disk where layers are merged."""
    java_archive_bytes: int = 2 * GIB
    """A Java archive inside an image; its table of contents may have 16 MiB, an archive in it 256 MiB."""
    package_records: int = 250_000
    """Packages of one image, and files that record them."""
    feed_bytes: int = 4 * GIB
    """One file of a feed of advisories, as it is fetched."""
    feed_unpacked_bytes: int = 32 * GIB
    """All records of one feed, unpacked."""
    advisory_bytes: int = 16 * MIB
    """One advisory, or what a tracker says of one package."""
    advisories: int = 2_000_000
    """Advisories of one feed."""
    index_bytes: int = 16 * GIB
    """An index of advisories that is imported."""
    vex_bytes: int = 64 * MIB
    """A VEX document or an ignore file."""
    test_output_bytes: int = 1 * MIB
    """Output of one test, both streams together; of more, the beginning and the end are kept."""
    http_seconds: float = 60.0
    """Silence on a connection before it is given up."""
    json_answer_bytes: int = 64 * MIB
    """A JSON answer of a hub or registry."""
    token_answer_bytes: int = 256 * KIB
    """The answer of a registry's token endpoint."""
    referrers: int = 4096
    """Manifests that refer to one image: its SIF, recipe, sources and evidence."""
    evidence_total_bytes: int = 1 * GIB
    """All evidence of one image."""
    header_bytes: int = 64 * KIB
    """All headers of one request; the longest are tokens and cookies."""
    listed_names: int = 1_000_000
    """Repositories of a registry, or tags of one of them."""
    search_chars: int = 256
    """What people type into a search."""
    page_rows: int = 100
    """Entries of one page of a list."""
    about_chars: int = 2000
    """One text of a recipe or evidence, where the hub shows it; the file itself is kept whole."""
    shown_bytes: int = 128 * KIB
    """A file that the portal shows as text; larger ones can only be downloaded."""
    variants: int = 32
    """Variants of one version of a release that are looked at before one is chosen."""
    array_tasks: int = 100_000
    """Tasks of one array of a job."""
    job_record_bytes: int = 64 * MIB
    """A file about one job in the folder of jobs."""
    inventory_seconds: int = 600
    """How long the hub reads one image to list its packages."""
    inventory_memory_bytes: int = 3 * GIB
    """Address space of the process that does so."""

    deposit_bytes: int = 8 * GIB
    """A source that is deposited, as it is sent."""
    deposit_unpacked_bytes: int = 8 * GIB
    """All files of it, unpacked; at most 100,000."""
    deposit_seconds: int = 50
    """How long the hub opens a deposit, or fetches one by git: less than clients wait for an answer."""
    deposit_memory_bytes: int = 2 * GIB
    """Address space of the process that does so."""


LIMITS = Limits()
