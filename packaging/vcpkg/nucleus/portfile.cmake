# vcpkg port of nucleus. It builds from an archive of the sources, with the Rust toolchain of this host:
#
#     make source-archive
#     vcpkg install nucleus --overlay-ports=packaging/vcpkg
#
# The archive is in the target directory of the tree, or beside this file. Cargo downloads the crates of Cargo.lock,
# unless they are in its cache.

set(archive "nucleus-${VERSION}.tar.gz")
find_file(NUCLEUS_ARCHIVE "${archive}" PATHS "${CURRENT_PORT_DIR}" "${CURRENT_PORT_DIR}/../../../target" NO_DEFAULT_PATH)
if(NOT NUCLEUS_ARCHIVE)
    message(FATAL_ERROR "there is no ${archive}; run make source-archive, and copy it to ${CURRENT_PORT_DIR}")
endif()
vcpkg_extract_source_archive(SOURCE_PATH ARCHIVE "${NUCLEUS_ARCHIVE}")

# vcpkg clears the environment, so cargo may not be in PATH.
find_program(CARGO cargo PATHS "$ENV{HOME}/.cargo/bin" REQUIRED)
get_filename_component(cargo_directory "${CARGO}" DIRECTORY)
vcpkg_add_to_path(PREPEND "${cargo_directory}")

# The library has one build type, and its libraries do not depend on the C++ compiler.
set(VCPKG_BUILD_TYPE release)
vcpkg_execute_required_process(
    COMMAND make build DEPS=no
    WORKING_DIRECTORY "${SOURCE_PATH}"
    LOGNAME "build-${TARGET_TRIPLET}")
vcpkg_execute_required_process(
    COMMAND make install DEPS=no RELOCATABLE=yes "CMAKEDIR=share/${PORT}" "PREFIX=${CURRENT_PACKAGES_DIR}"
    WORKING_DIRECTORY "${SOURCE_PATH}"
    LOGNAME "install-${TARGET_TRIPLET}")

# A vcpkg package has one kind of library. It has vcpkg's list of files, and of the documents only the licence.
if(VCPKG_LIBRARY_LINKAGE STREQUAL "static")
    file(GLOB unwanted "${CURRENT_PACKAGES_DIR}/lib/libnucleus.so*")
    file(REMOVE_RECURSE ${unwanted} "${CURRENT_PACKAGES_DIR}/lib/.debug")
else()
    file(REMOVE "${CURRENT_PACKAGES_DIR}/lib/libnucleus.a" "${CURRENT_PACKAGES_DIR}/lib/pkgconfig/nucleus-static.pc")
endif()
file(REMOVE_RECURSE
    "${CURRENT_PACKAGES_DIR}/share/${PORT}/installed-files"
    "${CURRENT_PACKAGES_DIR}/share/doc"
    "${CURRENT_PACKAGES_DIR}/share/man")
vcpkg_copy_tools(TOOL_NAMES nucleus AUTO_CLEAN)
vcpkg_fixup_pkgconfig()
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(INSTALL "${CURRENT_PORT_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
